"""What a person sees of a run: a progress bar, ``log.jsonl``, ``log.csv``, ``left-out.jsonl``, TensorBoard."""

import csv
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..mforce_core.model.config import ConfigError

try:
    import resource
except ImportError:  # Windows has no such module
    resource = None  # type: ignore[assignment]

LOG_FILE, TABLE_FILE, LEFT_OUT_FILE = "log.jsonl", "log.csv", "left-out.jsonl"


class Log:
    """Entries by step; after a resume those that an interrupted run wrote past its last checkpoint are dropped."""

    def __init__(
        self, folder: Path, *, steps: int, batch_size: int, first_step: int, tensorboard: bool, device: torch.device
    ) -> None:
        self.folder, self.batch_size, self.device = folder, batch_size, device
        self.path = folder / LOG_FILE
        kept = [entry for entry in read_log(folder) if entry["step"] <= first_step]
        self.path.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
        self._board = _open_board(folder, first_step) if tensorboard else None
        self._bar = tqdm(total=steps, initial=first_step, unit="step", disable=None, dynamic_ncols=True)
        self._started = time.perf_counter()
        self._warm: tuple[int, float] | None = None  # step and time at the end of the first interval
        self._last = first_step, self._started
        self._left_out = 0

    def progress(self, step: int) -> None:
        """A step is finished."""
        self._bar.update(step - self._bar.n)

    def interval(self, step: int, values: Mapping[str, float]) -> None:
        """Write down the means of the steps since the last interval, with the speed.

        ``images_per_second`` is that of the interval, ``mean_images_per_second`` of all intervals but the first, whose
        time goes to compilation.
        """
        now = time.perf_counter()
        entry = {**values, "seconds": now - self._started, "images_per_second": self._rate(self._last, step, now)}
        if self._warm is None:
            self._warm = step, now
        else:
            entry["mean_images_per_second"] = self._rate(self._warm, step, now)
        memory = peak_memory(self.device)
        if memory is not None:
            entry["memory_gib"] = memory
        self._last = step, now
        self.write(step, entry)
        shown = {name: f"{value:.4f}" for name, value in loss_terms(entry).items()}
        self._bar.set_postfix(shown | {"img/s": f"{entry['images_per_second']:.1f}"})
        if self._bar.disable:
            print(_line(step, entry), flush=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line of the file, and TensorBoard."""
        with self.path.open("a", encoding="utf-8") as file:
            print(_line(step, values), file=file)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def left_out(self, samples: Mapping[tuple[str, str], str]) -> None:
        """Samples that could not be used so far, by shard and key with the reason; new ones are appended to a file."""
        new = list(samples.items())[self._left_out :]
        self._left_out += len(new)
        if not new:
            return
        with (self.folder / LEFT_OUT_FILE).open("a", encoding="utf-8") as file:
            for (shard, key), reason in new:
                print(json.dumps({"shard": shard, "key": key, "reason": reason}), file=file)

    def picture(self, name: str, step: int, pixels: Any) -> None:
        """A picture (H, W, 3) uint8 for TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """End the bar, and write the log once more as a table."""
        self._bar.close()
        if self._left_out:
            print(f"{self._left_out} samples could not be used; {self.folder / LEFT_OUT_FILE} says why")
        _write_table(self.folder)
        if self._board is not None:
            self._board.close()

    def _rate(self, since: tuple[int, float], step: int, now: float) -> float:
        return (step - since[0]) * self.batch_size / (now - since[1])


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


#: Entries of an interval that are no loss.
_NO_LOSS = {
    "step",
    "gradient_norm",
    "critic_norm",
    "lr",
    "seconds",
    "images_per_second",
    "mean_images_per_second",
    "memory_gib",
}


def loss_terms(entry: Mapping[str, float]) -> dict[str, float]:
    """The losses of an interval's entry, also those that a user added; nothing for a look at held-out samples."""
    if "gradient_norm" not in entry:
        return {}
    return {name: value for name, value in entry.items() if name not in _NO_LOSS and "@" not in name}


def peak_memory(device: torch.device) -> float | None:
    """GiB that this process took at most: on the GPU, or of main memory; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _write_table(folder: Path) -> None:
    entries = read_log(folder)
    columns = list(dict.fromkeys(name for entry in entries for name in entry))
    with (folder / TABLE_FILE).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(entries)


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
