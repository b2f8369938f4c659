"""What a person sees of a run: a progress bar, ``log.jsonl``, TensorBoard."""

import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..mforce_core.model.config import ConfigError
from .config import TrainConfig

LOG_FILE = "log.jsonl"


class Log:
    """Entries by step; after a resume those that an interrupted run wrote past its last checkpoint are dropped."""

    def __init__(self, config: TrainConfig, first_step: int, device: torch.device) -> None:
        self.config, self.device = config, device
        self.path = config.out / LOG_FILE
        kept = [entry for entry in read_log(config.out) if entry["step"] <= first_step]
        self.path.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        self._board = _open_board(config.out, first_step) if config.tensorboard else None
        self._bar = tqdm(total=config.steps, initial=first_step, unit="step", disable=None, dynamic_ncols=True)
        self._started, self._first_step = time.perf_counter(), first_step

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """Show the values of a finished step, and write them down every ``log_every`` steps."""
        self._bar.update(step - self._bar.n)
        if step % self.config.log_every:
            return
        seconds = time.perf_counter() - self._started
        rate = (step - self._first_step) * self.config.batch_size / seconds
        entry = {**values, "seconds": seconds, "images_per_second": rate, "memory_gib": peak_memory(self.device)}
        self.write(step, entry)
        shown: dict[str, str] = {
            name: f"{entry[name]:.4f}" for name in ("rgb", "depth", "distillation") if name in entry
        }
        shown |= {"img/s": f"{rate:.1f}", "GiB": f"{entry['memory_gib']:.1f}"}
        self._bar.set_postfix(shown)
        if self._bar.disable:
            print(_line(step, entry), flush=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line of the file, and TensorBoard."""
        with self.path.open("a", encoding="utf-8") as file:
            print(_line(step, values), file=file)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def picture(self, name: str, step: int, pixels: Any) -> None:
        """A picture (H, W, 3) uint8 for TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._bar.close()
        if self._board is not None:
            self._board.close()


def read_log(folder: Path) -> list[dict[str, float]]:
    """Entries of a run's log; a line that a kill cut short is left out."""
    path = folder / LOG_FILE
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries


def peak_memory(device: torch.device) -> float:
    """GiB that this process took at most: on the GPU, or of main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _line(step: int, values: Mapping[str, float]) -> str:
    return json.dumps({"step": step, **{name: float(f"{value:.8g}") for name, value in values.items()}})


def _open_board(folder: Path, first_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "tensorboard = true needs TensorBoard: pip install 'comfyui-modality-forcing[train]'"
        ) from None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)
