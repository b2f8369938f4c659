"""Train one stage: ``mforce train CONFIG``, or on several processes
``torchrun --nproc-per-node N -m mforce.training.train CONFIG [--set section.key=value ...]``.

Run again with the same configuration to go on from the last checkpoint; SIGTERM or Ctrl-C saves and stops. Every random
draw is a function of (seed, step, row), so a resumed run continues the curve of an uninterrupted one, and any number of
processes trains on the same batches.
"""

import argparse
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..mforce_core import load_model
from ..mforce_core.model.tokens import latents_to_tokens, patches_to_tokens
from .batches import SequentialSource
from .checkpoint import Checkpoints, TrainingState
from .config import TrainConfig, read_train_config
from .export import export
from .heldout import HeldOut
from .initialize import build, fill, freeze
from .log import Log
from .lora import add_lora
from .optimizer import MovingAverage, build_optimizers, learning_rate
from .processes import Processes, checkpoint_activations, compiled, join, leave, shard
from .recipe import (
    Batch,
    Noise,
    Totals,
    counted_pixels,
    depth_tokens,
    draw_noise,
    drop_captions,
    losses,
    row_generator,
)
from .report import write_report
from .source import open_source
from .teacher import make_teacher

#: A run's configuration in its folder.
SETTINGS = "config.json"


class DivergedError(ValueError):
    """A gradient that is not finite."""


class Trainer:
    """State of a run: everything that a step reads or writes."""

    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        config.check_processes(processes.count)
        config.check_base()
        config.check_data()
        self.config, self.processes = config, processes
        self.source = open_source(
            config.data,
            config.text_encoder,
            batch_size=config.batch_size,
            seed=config.seed,
            depth=config.stage == "mf",
            device=processes.device,
        )

        base = {} if config.base is None else load_model(config.base).state_dict()
        self.model = build(config.sizes(), getattr(torch, config.precision))
        if config.trainable == "lora":
            add_lora(self.model, config.lora)
        freeze(self.model, config.trainable)
        if config.scale.checkpoint_activations:
            checkpoint_activations(self.model)
        shard(self.model, processes)
        self.model.to_empty(device=processes.device)
        fill(self.model, base, config.recipe, config.seed)
        self.forward = compiled(self.model, config.compile, processes)
        self.teacher = make_teacher(config, self.model, self.forward, base, processes)

        self.optimizers = build_optimizers(self.model, config.optimizer)
        self.average = MovingAverage(self.model, config.optimizer.ema_decay)
        self.state = TrainingState(self.model, self.average, self.optimizers)
        self.checkpoints = Checkpoints(config.out / "checkpoints", config.keep_last, processes)
        self.step = self.checkpoints.load(self.state)
        if isinstance(self.source, SequentialSource) and self.state.position:
            self.source.load_state_dict({name: value.tolist() for name, value in self.state.position.items()})
        self._reader = ThreadPoolExecutor(1)
        self._next = self._read(self.step)

    def train_step(self) -> dict[str, float]:
        """One optimizer step; returns the losses of the global batch, the gradient norm and the learning rate."""
        config, processes = self.config, self.processes
        parts, position = self._next.result()
        self._next = self._read(self.step + 1)
        pixels = sum(counted(batch, noise) for batch, noise in parts)
        totals = Totals(config.batch_size, float(processes.total(torch.tensor(pixels, dtype=torch.float64))))

        sums: dict[str, Tensor] = {}
        for batch, noise in parts:
            terms = losses(
                self.forward, self.teacher, to(batch, processes), to(noise, processes), config.recipe, totals
            )
            # Sharding averages gradients over processes; theirs add up.
            (torch.stack(list(terms.values())).sum() * processes.count).backward()
            sums = {name: sums.get(name, 0) + term.detach() for name, term in terms.items()}

        trained = [p for p in self.model.parameters() if p.requires_grad]
        norm = whole(torch.nn.utils.clip_grad_norm_(trained, config.optimizer.gradient_clip, foreach=True))
        if not torch.isfinite(norm):
            raise DivergedError(self._save_culprit(parts))
        rate = learning_rate(self.step, config.steps, config.optimizer)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.average.update(self.step)
        self.state.position = position
        values = processes.total(torch.stack(list(sums.values())).double().cpu()).tolist()
        return dict(zip(sums, values, strict=True)) | {"gradient_norm": norm.item(), "lr": rate}

    def save(self) -> None:
        """Begin to write a checkpoint of this step."""
        self.checkpoints.save(self.step, self.state)

    def close(self) -> None:
        """Wait for what runs in the background. Raises SaveError where the last checkpoint could not be written."""
        self._next.cancel()
        self._reader.shutdown()
        self.checkpoints.finish()

    def _read(self, step: int) -> Future[tuple[list[tuple[Batch, Noise]], dict[str, Tensor]]]:
        """Read a step's rows while the one before it is computed, and where a sequential source is after them."""

        def read() -> tuple[list[tuple[Batch, Noise]], dict[str, Tensor]]:
            parts = list(self._micro_batches(step))
            if not isinstance(self.source, SequentialSource):
                return parts, {}
            return parts, {name: torch.tensor(numbers) for name, numbers in self.source.state_dict().items()}

        return self._reader.submit(read)

    def _micro_batches(self, step: int) -> Iterator[tuple[Batch, Noise]]:
        """This process's rows of a step, in parts of one forward pass."""
        own = self.processes.share(self.config.batch_size)
        size = self.config.scale.micro_batch_size or own.stop - own.start
        for start in range(own.start, own.stop, size):
            yield self._prepared(step, slice(start, min(start + size, own.stop)))

    def _prepared(self, step: int, rows: slice) -> tuple[Batch, Noise]:
        config = self.config
        rgb, depth, text = self.source.batch(step, rows)
        draws = [row_generator(config.seed, step, row) for row in range(rows.start, rows.stop)]
        text = drop_captions(text, self.source.null_text, config.data.caption_dropout, draws)
        tokens = None
        if config.stage == "mf":
            if depth is None:
                raise ValueError("stage mf needs depth, which the data has not")
            tokens = depth_tokens(depth, config.recipe, self.model.config.depth_patch_size, draws)
        grid = (rgb.shape[2], rgb.shape[3])
        batch = Batch(latents_to_tokens(rgb).contiguous(), tokens, text, grid)
        return batch, draw_noise(batch, config.recipe, draws)

    def _save_culprit(self, parts: list[tuple[Batch, Noise]]) -> str:
        """Keep the batch that made the gradient infinite, and say where."""
        path = self.config.out / f"not-finite-step-{self.step}-process-{self.processes.rank}.safetensors"
        tensors = {
            f"{index}.{kind}.{name}": value.contiguous()
            for index, (batch, noise) in enumerate(parts)
            for kind, group in (("batch", batch._asdict()), ("noise", noise._asdict()))
            for name, value in group.items()
            if isinstance(value, Tensor)
        }
        save_file(tensors, path)
        return (
            f"the gradient is not finite at step {self.step}; the batch is in {path} and the last checkpoint in "
            f"{self.checkpoints.folder}: lower optimizer.learning_rate, or look for broken samples in that batch"
        )


def counted(batch: Batch, noise: Noise) -> int:
    """Depth pixels of a batch that the loss is divided by."""
    if batch.depth is None or noise.t_depth is None:
        return 0
    return int(counted_pixels(patches_to_tokens(batch.depth), noise.t_depth).sum())


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor as every process sees it."""
    return tensor.full_tensor() if isinstance(tensor, torch.distributed.tensor.DTensor) else tensor


def to(values, processes: Processes):
    """Move the tensors of a named tuple to the device."""
    moved = (v.to(processes.device, non_blocking=True) if isinstance(v, Tensor) else v for v in values)
    return type(values)(*moved)


class Stop:
    """Whether SIGTERM or Ctrl-C came, to any of the processes."""

    def __init__(self, processes: Processes) -> None:
        self.processes, self.here = processes, False
        self._before = {number: signal.signal(number, self._request) for number in (signal.SIGTERM, signal.SIGINT)}

    def _request(self, *_: object) -> None:
        self.here = True

    def restore(self) -> None:
        """Signals do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return bool(self.processes.total(torch.tensor(int(self.here))))


def train(config: TrainConfig) -> int:
    """Run a stage to its last step, or until SIGTERM; ends with an exported model and a report.

    Returns the step that was reached.
    """
    processes = join(config.device)
    stop = Stop(processes)
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, processes)
        heldout = None if config.heldout is None else HeldOut(config, trainer.source.null_text, processes)
        log = None
        if processes.first:
            (config.out / SETTINGS).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
            log = Log(config, trainer.step, processes.device)
            count = sum(p.numel() for p in trainer.model.parameters())
            print(f"{config.stage}: {count / 1e6:.2f} M parameters, {len(trainer.source)} images, step {trainer.step}")
        while trainer.step < config.steps and not stop:
            try:
                values = trainer.train_step()
            except DivergedError:
                trainer.close()  # a checkpoint may be on its way
                raise
            if log is not None:
                log.step(trainer.step, values)
            if trainer.step % config.save_every == 0:
                trainer.save()
            if heldout is not None and heldout.is_due(trainer.step):
                with trainer.average.in_model():
                    heldout.look(trainer.model, trainer.step, log)
        trainer.save()
        trainer.close()
        folder = export(config, trainer.model, trainer.average, trainer.source.latent_shape[1:], processes)
        if log is not None:
            log.close()
            write_report(config)
            print(f"step {trainer.step} of {config.steps}: checkpoint in {config.out}, model in {folder}")
        return trainer.step
    finally:
        stop.restore()
        leave()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    args = parser.parse_args()
    try:
        train(read_train_config(args.config, args.overrides))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
