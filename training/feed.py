"""The rows of every step, read and prepared while the step before it is computed."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .batches import SequentialSource, Source
from .beside import Beside
from .config import TrainConfig
from .draws import BatchDraws, Draws, RowDraws
from .jumps import JumpPaths, Jumps
from .losses import Totals, counted_pixels
from .noise import Noise, draw_noise
from .processes import Processes
from .recipe import Batch, prepare
from .stop import SIGNALS, Stop


class Step(NamedTuple):
    """What a step trains on.

    ``parts`` of one forward pass each; ``totals`` of all processes; ``signal`` that asked any process to stop;
    ``position`` of a sequential source after the step.
    """

    parts: list[tuple[Batch, Noise | Jumps]]
    totals: Totals
    signal: int | None
    position: dict[str, Tensor]


class Feed:
    """Steps in order, each read ahead in a thread, where processes also agree on what they must know of each other."""

    def __init__(
        self,
        config: TrainConfig,
        source: Source,
        stop: Stop,
        processes: Processes,
        first_step: int,
        jumps: JumpPaths | None = None,
    ) -> None:
        self.config, self.source, self.stop, self.processes, self.jumps = config, source, stop, processes, jumps
        self.patch_size = config.sizes().depth_patch_size if config.has_depth else 0
        # The main thread talks between processes at the same time: the reader has its own line.
        self._group = dist.new_group(backend="gloo") if processes.count > 1 else None
        self._beside = Beside(processes.device if config.data.on_device else torch.device("cpu"))
        self._reader = ThreadPoolExecutor(1)
        self._next = self._submit(first_step)

    def take(self) -> Step:
        """The next step; begins to read the one after it."""
        step, read = self._next[0], self._next[1].result()
        self._beside.hand_over(
            value for part in read.parts for group in part for value in group if isinstance(value, Tensor)
        )
        self._next = self._submit(step + 1)
        return read

    def signal(self) -> int | None:
        """The signal that asked to stop before the next step, the same on every process."""
        return self.stop.signal if self.processes.count == 1 else self._next[1].result().signal

    def parts(self, step: int) -> Iterator[tuple[Batch, Noise | Jumps]]:
        """This process's rows of a step, in parts of one forward pass."""
        own = self.processes.share(self.config.batch_size)
        size = self.config.scale.micro_batch_size or own.stop - own.start
        for start in range(own.start, own.stop, size):
            yield self._part(step, slice(start, min(start + size, own.stop)))

    def close(self) -> None:
        """Wait for the reader, whose last step other processes may be waiting for."""
        self._reader.shutdown()

    def _submit(self, step: int) -> tuple[int, Future[Step]]:
        return step, self._reader.submit(self._read, step)

    def _read(self, step: int) -> Step:
        with self._beside.making():
            return self._prepare(step)

    def _prepare(self, step: int) -> Step:
        parts = list(self.parts(step))
        position = {}
        if isinstance(self.source, SequentialSource):
            position = {name: torch.tensor(numbers) for name, numbers in self.source.state_dict().items()}
        pixels = sum(_counted(batch, noise) for batch, noise in parts)
        known = torch.tensor([pixels, *(self.stop.signal == number for number in SIGNALS)], dtype=torch.float64)
        if self._group is not None:
            dist.all_reduce(known, group=self._group)
        signal = next((number for number, asked in zip(SIGNALS, known[1:].tolist(), strict=True) if asked), None)
        return Step(parts, Totals(self.config.batch_size, float(known[0])), signal, position)

    def _part(self, step: int, rows: slice) -> tuple[Batch, Noise | Jumps]:
        config = self.config
        encoded = self.source.batch(step, rows)
        if not config.has_depth:
            encoded = encoded._replace(depth=None)
        elif encoded.depth is None:
            raise ValueError(f"stage {config.stage} needs depth, which the data has not")
        draws: Draws
        if config.data.on_device:
            draws = BatchDraws(config.seed, step, config.batch_size, rows, self.processes.device)
        else:
            draws = RowDraws(config.seed, step, range(rows.start, rows.stop))
        null_text, dropout = self.source.null_text, config.data.caption_dropout
        batch = prepare(encoded, null_text, dropout, config.recipe, self.patch_size, draws)
        return batch, draw_noise(batch, config.recipe, draws) if self.jumps is None else self.jumps.draw(batch, draws)


def _counted(batch: Batch, noise: Noise | Jumps) -> int:
    """Depth pixels of a batch that the loss is divided by; distillation counts samples."""
    if batch.depth is None or isinstance(noise, Jumps) or noise.t_depth is None:
        return 0
    return int(counted_pixels(batch.depth, noise.t_depth).sum())
