"""Train one stage: ``mforce train CONFIG``, or on several processes
``torchrun --nproc-per-node N -m mforce.training.train CONFIG [--set section.key=value ...]``.

Run again with the same configuration to resume from the last checkpoint; SIGTERM or Ctrl-C saves and stops. Every
random draw is a function of (seed, step, row), so a resumed run continues the curve of an uninterrupted one, and any
number of processes trains on the same batches.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..mforce_core import load_model
from ..mforce_core.weights.header import read_header
from .batches import SequentialSource
from .checkpoint import Checkpoints, TrainingState
from .checks import SETTINGS, check_config, check_continued, check_device, check_source
from .config import TrainConfig
from .config_file import read_train_config
from .export import export
from .feed import Feed
from .heldout import open_heldout
from .jumps import JumpPaths
from .log import Log
from .losses import load_terms
from .meter import Meter
from .objective import objective
from .optimizer import MovingAverage, learning_rate, ramps
from .processes import Processes, compiled, join, leave, reduce_gradients, to
from .report import write_report
from .source import open_source
from .stop import Stop, exit_code
from .teacher import make_teacher
from .trained import Trained, faster, trained_model


class DivergedError(ValueError):
    """A gradient that is not finite."""


class Trainer:
    """State of a run: everything that a step reads or writes."""

    def __init__(self, config: TrainConfig, processes: Processes, *, changed: bool = False) -> None:
        check_config(config, processes.count)
        self.checkpoints = Checkpoints(config.out / "checkpoints", config.keep_last, processes)
        if not changed:
            check_continued(config, self.checkpoints.last_step())
        self.config, self.processes = config, processes
        self.terms = load_terms(config.recipe.terms)
        self.source = open_source(config, depth=config.has_depth, device=processes.device)
        check_source(config, self.source)

        distills = config.stage == "distill"
        base = {} if config.base is None else load_model(config.base).state_dict()
        self.model = trained_model(config, base, processes)
        jumps = None
        if config.base is not None and distills:
            self.model.schedule = read_header(config.base).config.schedule
            jumps = JumpPaths(
                config.distillation, config.recipe, self.model.schedule, embeds=config.sizes().use_guidance_embed
            )
        self.critic = trained_model(config, base, processes) if config.has_critic else None
        self.forward = compiled(self.model, config.compile, processes)
        critic = None if self.critic is None else compiled(self.critic, config.compile, processes)
        teacher = make_teacher(config, self.model, self.forward, base, processes)
        null_text = self.source.null_text.to(processes.device)
        self.losses = objective(config, self.forward, teacher, critic, null_text, self.terms)

        #: By the name of the gradient's norm in the log.
        self.trained = {"gradient_norm": Trained(self.model, config.optimizer, config.steps)}
        if self.critic is not None:
            rate = faster(config.optimizer, config.distillation.critic_rate)
            self.trained["critic_norm"] = Trained(self.critic, rate, config.steps)
        self.average = MovingAverage(self.model, config.optimizer.ema_decay)
        optimizers = [one for part in self.trained.values() for one in part.optimizers]
        self.state = TrainingState(self.model, self.average, optimizers, self.critic)
        self.step = self.checkpoints.load(self.state)
        if isinstance(self.source, SequentialSource) and self.state.position:
            self.source.load_state_dict({name: value.tolist() for name, value in self.state.position.items()})
        self.stop, self.meter = Stop(), Meter(processes)
        self.feed = Feed(config, self.source, self.stop, processes, self.step, jumps)

    def train_step(self) -> None:
        """One optimizer step. The host waits for nothing here; what is measured stays on the device."""
        config, processes = self.config, self.processes
        step = self.feed.take()
        for index, (batch, noise) in enumerate(step.parts, 1):
            batch, noise = to(batch, processes.device), to(noise, processes.device)
            terms, errors = self.losses(batch, noise, step.totals)
            for part in self.trained.values():
                reduce_gradients(part.model, index == len(step.parts) or config.scale.reduce_gradients == "micro_batch")
            # Sharding averages gradients over processes; theirs add up.
            (torch.stack(list(terms.values())).sum() * processes.count).backward()
            self.meter.add(terms, errors)

        norms = {name: part.step(self.step) for name, part in self.trained.items()}
        self.meter.end_step(self.step, norms)
        self.step += 1
        self.average.update(self.step)
        self.state.position = step.position

    def measures(self) -> dict[str, float]:
        """Means of the steps since the last call; see :meth:`.meter.Meter.read`. All processes call it.

        Raises:
            DivergedError: the gradient of one of them was not finite.
        """
        self.check_finite()
        return self.meter.read() | {"lr": learning_rate(self.step - 1, self.config.steps, self.config.optimizer)}

    def save(self) -> None:
        """Begin to write a checkpoint of this step. Raises DivergedError instead of keeping broken weights."""
        self.check_finite()
        self.checkpoints.save(self.step, self.state)

    def check_finite(self) -> None:
        """Wait for the steps so far. Raises DivergedError, with the batch of the first broken one in a file."""
        step = self.meter.not_finite()
        if step is None:
            return
        self.close()  # a checkpoint may be on its way, and the reader must stand still
        path = self.config.out / f"not-finite-step-{step}-process-{self.processes.rank}.safetensors"
        # Copies: a file takes no two tensors that share memory, as the scales of student and teacher may.
        tensors = {
            f"{index}.{kind}.{name}": value.clone(memory_format=torch.contiguous_format)
            for index, (batch, noise) in enumerate(self.feed.parts(step))
            for kind, group in (("batch", batch._asdict()), ("noise", noise._asdict()))
            for name, value in group.items()
            if isinstance(value, Tensor)
        }
        save_file(tensors, path)
        raise DivergedError(
            f"the gradient is not finite at step {step}; the batch is in {path} and the last checkpoint in "
            f"{self.checkpoints.folder}: lower optimizer.learning_rate, or look for broken samples in that batch"
        )

    def left_out(self) -> dict[tuple[str, str], str]:
        """Samples of a stream that this process could not use, by shard and key, with the reason."""
        return dict(self.source.broken) if isinstance(self.source, SequentialSource) else {}

    def close(self) -> None:
        """Wait for what runs in the background. Raises SaveError where the last checkpoint could not be written."""
        self.feed.close()
        self.checkpoints.finish()


class Ended(NamedTuple):
    """``step`` that a run reached, and the ``signal`` that stopped it before its last one, if any."""

    step: int
    signal: int | None


def train(config: TrainConfig, *, changed: bool = False) -> Ended:
    """Run a stage to its last step, or until SIGTERM or Ctrl-C; ends with an exported model and a report.

    Args:
        changed: resume even though seed, data or length are not those that the run began with.
    """
    check_device(config.device)
    processes = join(config.device)
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(config, processes, changed=changed)
        with trainer.stop.listening():
            return _run(trainer, config, processes)
    finally:
        leave()


def _run(trainer: Trainer, config: TrainConfig, processes: Processes) -> Ended:
    heldout = open_heldout(config, trainer.source.null_text.cpu(), processes)
    log = _open_log(trainer, config, processes) if processes.first else None
    signal = None
    while trainer.step < config.steps and signal is None:
        trainer.train_step()
        if log is not None:
            log.progress(trainer.step)
        if trainer.step % config.log_every == 0:
            values = trainer.measures()
            if log is not None:
                log.interval(trainer.step, values)
                log.left_out(trainer.left_out())
        if trainer.step % config.save_every == 0:
            trainer.save()
        if heldout is not None and (trainer.step % heldout.every == 0 or trainer.step == config.steps):
            with trainer.average.in_model():
                heldout.look(trainer.model, trainer.step, log)
        signal = trainer.feed.signal()
    trainer.save()
    trainer.close()
    folder = export(config, trainer.model, trainer.average, trainer.source.latent_shape[1:], processes)
    if log is not None:
        log.close()
        write_report(config)
        print(f"step {trainer.step} of {config.steps}: checkpoint in {config.out}, model in {folder}")
    return Ended(trainer.step, signal if trainer.step < config.steps else None)


def _open_log(trainer: Trainer, config: TrainConfig, processes: Processes) -> Log:
    """The log, the run's configuration in its folder, and a few lines on what begins."""
    (config.out / SETTINGS).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")
    count = sum(p.numel() for p in trainer.model.parameters())
    print(f"{config.stage}: {count / 1e6:.2f} M parameters, {len(trainer.source)} images, step {trainer.step}")
    warmup, cooldown = ramps(config.optimizer, config.steps)
    if warmup + cooldown < config.optimizer.warmup_steps + config.optimizer.cooldown_steps:
        print(
            f"warm-up and cool-down are shortened to {warmup} and {cooldown} steps, so that this run of {config.steps} "
            "reaches its learning rate"
        )
    if config.compile and trainer.step < config.steps:
        print("compiling: the first step takes minutes where nothing is cached yet", flush=True)
    return Log(
        config.out,
        steps=config.steps,
        batch_size=config.batch_size,
        first_step=trainer.step,
        tensorboard=config.tensorboard,
        device=processes.device,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    parser.add_argument("--changed", action="store_true", help="resume with another seed, data or length")
    args = parser.parse_args()
    try:
        ended = train(read_train_config(args.config, args.overrides), changed=args.changed)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if ended.signal is not None:
        raise SystemExit(exit_code(ended.signal))


if __name__ == "__main__":
    main()
