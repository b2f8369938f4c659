"""Resumable state by torch.distributed.checkpoint: written in the background, as safetensors, sharded as the run is.

A checkpoint is a folder ``step-N``. It is written under another name and renamed when every process has written its
part, so a folder of that name is always whole, whenever the run was killed.
"""

import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from .optimizer import MovingAverage
from .processes import Processes

# One process saving alone is meant; the remark comes from the thread that writes.
warnings.filterwarnings("ignore", message="torch.distributed is disabled")

_COMPLETE = re.compile(r"step-(\d+)$")


class SaveError(OSError):
    """A checkpoint that could not be written; the ones before it are still there."""


class TrainingState:
    """What a run needs to resume: trained weights, their average and the optimizers' moments, by name.

    Attributes:
        position: where a sequential source is after the last step; empty for others, whose position is the step.
    """

    def __init__(
        self,
        model: nn.Module,
        average: MovingAverage,
        optimizers: list[torch.optim.Optimizer],
        critic: nn.Module | None = None,
    ) -> None:
        self.position: dict[str, Tensor] = {}
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        others = {} if critic is None else dict(critic.named_parameters())
        self.critic = {f"critic.{name}": p for name, p in others.items() if p.requires_grad}
        self.average, self.optimizers = average, optimizers

    def tensors(self) -> dict[str, Tensor]:
        weights = {f"model.{name}": p.detach() for name, p in self.trained.items()}
        weights |= {name: p.detach() for name, p in self.critic.items()}
        averages = {f"average.{name}": tensor for name, tensor in self.average.tensors.items()}
        positions = {f"source.{name}": tensor for name, tensor in self.position.items()}
        return weights | averages | self._moments() | positions

    def prepare(self, stored: Mapping[str, torch.Size]) -> None:
        """Room for what a checkpoint holds and a run that has not begun does not: optimizers make their moments at the
        first step only."""
        self.position = {
            name.removeprefix("source."): torch.zeros(size, dtype=torch.int64)
            for name, size in stored.items()
            if name.startswith("source.")
        }
        for optimizer in self.optimizers:
            for name, parameter in self._parameters_of(optimizer):
                prefix = f"optimizer.{name}."
                keys = [key for key in stored if key.startswith(prefix)]
                optimizer.state[parameter] = {
                    key.removeprefix(prefix): torch.zeros_like(parameter.detach())
                    if stored[key] == parameter.shape
                    else torch.zeros(stored[key])
                    for key in keys
                }

    def _moments(self) -> dict[str, Tensor]:
        return {
            f"optimizer.{name}.{key}": value
            for optimizer in self.optimizers
            for name, parameter in self._parameters_of(optimizer)
            for key, value in optimizer.state.get(parameter, {}).items()
        }

    def _parameters_of(self, optimizer: torch.optim.Optimizer) -> list[tuple[str, nn.Parameter]]:
        own = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        named = self.trained | self.critic
        return [(name, parameter) for name, parameter in named.items() if id(parameter) in own]


class Checkpoints:
    """The checkpoints of a run, the last ``keep`` of them; made by all of its processes together."""

    def __init__(self, folder: Path, keep: int, processes: Processes) -> None:
        self.folder, self.keep, self.processes = folder, keep, processes
        self._running: Future[None] | None = None
        self._newest = 0  # step of the last checkpoint that this run loaded or began to write
        # Saving talks between processes while training does: each has its own line.
        self._group = dist.new_group(backend="gloo") if processes.count > 1 else None
        folder.mkdir(parents=True, exist_ok=True)
        if processes.first:
            for leftover in folder.glob("step-*.part"):
                shutil.rmtree(leftover)
        processes.wait()

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        found = (_COMPLETE.match(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def last_step(self) -> int:
        """Of the last complete checkpoint, 0 where there is none."""
        return max(self.steps(), default=0)

    def load(self, state: TrainingState) -> int:
        """Restore the last complete checkpoint; returns its step, 0 where there is none.

        Raises:
            ValueError: the checkpoint is of a model with other tensors.
        """
        step = self.last_step()
        if not step:
            return 0
        path = self.folder / f"step-{step}"
        reader = HuggingFaceStorageReader(str(path))
        entries = reader.read_metadata().state_dict_metadata
        stored = {name: entry.size for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}
        state.prepare(stored)
        tensors = state.tensors()
        different = {name for name in tensors.keys() | stored.keys() if not _fits(tensors.get(name), stored.get(name))}
        if different:
            raise ValueError(
                f"{path} is of another model or optimizer ({len(different)} tensors differ, {min(different)} among "
                "them): choose another out, or delete it"
            )
        dcp.load(tensors, storage_reader=reader, no_dist=self.processes.count == 1)
        self._newest = step
        return step

    def save(self, step: int, state: TrainingState) -> None:
        """Begin to write a checkpoint; the tensors are copied first, so training may continue at once.

        Raises:
            SaveError: the one before could not be written.
        """
        self.finish()
        if step == self._newest:
            return
        partial = self.folder / f"step-{step}.part"
        writer = HuggingFaceStorageWriter(str(partial), save_distributed=True)
        self._newest = step
        with self._explained():
            running = dcp.async_save(
                state.tensors(),
                storage_writer=writer,
                process_group=self._group,
                no_dist=self._group is None,
            )
            assert isinstance(running, Future)
        # A future of its own: one's callbacks run after those who wait for it have gone on.
        complete: Future[None] = Future()
        self._running = complete
        running.add_done_callback(lambda written: self._complete(partial, written, complete))

    def finish(self) -> None:
        """Wait until the last checkpoint is complete. Raises SaveError where it could not be written."""
        if self._running is None:
            return
        running, self._running = self._running, None
        with self._explained():
            running.result()

    def _complete(self, partial: Path, written: Future, complete: Future[None]) -> None:
        """Give a written checkpoint its name, and delete those that are too old."""
        try:
            written.result()
            if self.processes.first:
                partial.replace(partial.with_suffix(""))
                for old in self.steps()[: -self.keep]:
                    # Renamed first: a kill half-way through must not leave a folder that looks whole.
                    doomed = (self.folder / f"step-{old}").rename(self.folder / f"step-{old}.part")
                    shutil.rmtree(doomed)
            complete.set_result(None)
        except BaseException as error:  # what failed in this thread is told where finish() waits
            complete.set_exception(error)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what writing raises into a sentence."""
        try:
            yield
        except (Exception, CheckpointException) as error:  # the latter is a BaseException
            raise self._failure(error) from error

    def _failure(self, error: BaseException) -> SaveError:
        if self.processes.first:
            shutil.rmtree(self.folder / f"step-{self._newest}.part", ignore_errors=True)
        before = [step for step in self.steps() if step != self._newest]
        kept = f"step {before[-1]} is safe there" if before else "there is no earlier one"
        return SaveError(
            f"the checkpoint of step {self._newest} could not be written to {self.folder} ({_reason(error)}); {kept}: "
            "free some space and run the same command again"
        )


def _fits(tensor: Tensor | None, size: torch.Size | None) -> bool:
    return tensor is not None and size is not None and tensor.shape == size


def _reason(error: BaseException) -> str:
    """The innermost message: torch.distributed.checkpoint collects the failures of all processes in one."""
    if isinstance(error, CheckpointException):
        error, _ = next(iter(error.failures.values()))
    return " ".join(str(error).split()) or type(error).__name__
