"""``mforce train``: run a stage, on one process or several, or say what it would take."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from ..mforce_core.model.config import ConfigError
from ..training.checks import check_config, check_device
from ..training.config import TrainConfig
from ..training.config_file import read_train_config
from ..training.keys import commented_file
from ..training.stop import Stop, exit_code
from .progress import say

#: Columns of a plan that are left out where there is nothing in them.
_SOMETIMES = ("teacher", "data")
#: GPU counts of a plan.
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)


def run_training(config_file: Path, overrides: list[str], processes: int, *, plan_only: bool, changed: bool) -> int:
    """Check the configuration, then train, start torchrun, or print the plan; returns the exit code.

    Raises:
        ValueError, OSError: see `read_train_config` and `training.train.train`.
    """
    config = read_train_config(config_file, overrides)
    if plan_only:
        print_plan(config)
        return 0
    check_device(config.device)
    check_config(config, processes)
    if processes > 1:
        settings = [part for override in overrides for part in ("--set", override)]
        return _by_torchrun(processes, [str(config_file), *settings, *(["--changed"] if changed else [])])
    from ..training.train import train

    stopped = train(config, changed=changed).signal
    return 0 if stopped is None else exit_code(stopped)


def _by_torchrun(processes: int, arguments: list[str]) -> int:
    """Run torchrun, in a session of its own so that a signal reaches it once: from here."""
    module = f"{__package__.rpartition('.')[0]}.training.train"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", module]
    stop = Stop()
    with stop.listening():
        running = subprocess.Popen([sys.executable, *launcher, *arguments], start_new_session=True)
        told = False
        while True:
            try:
                code = running.wait(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if stop.signal is not None and not told:
                    running.send_signal(signal.SIGTERM)  # which torchrun hands on; it would cut Ctrl-C short
                    told = True
    return code if stop.signal is None else exit_code(stop.signal)


def write_template(path: Path, preset: str) -> None:
    """Write a commented configuration to start from. Raises ConfigError where the file exists or no preset is meant."""
    if path.exists():
        raise ConfigError(f"--init: {path} exists already: name another file")
    path.write_text(commented_file(preset), encoding="utf-8")
    say(f"{path} is a copy of {preset} with every key: change it, then run mforce train {path}")


def print_plan(config: TrainConfig) -> None:
    """Parameters, then a row for every number of GPUs that the batch divides among."""
    from ..training import plan

    model = plan.meta_model(config)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    costs = plan.count_costs(config)
    rows = []
    for count in _COUNTS:
        try:
            estimate = plan.plan(config, costs, count)
        except ConfigError:
            continue
        kept = estimate.checkpointed if config.scale.checkpoint_activations else estimate.activations
        sizes = {
            "weights": estimate.weights,
            "grad": estimate.gradients,
            "optim": estimate.optimizer,
            "EMA": estimate.average,
            "teacher": estimate.teacher,
            "data": estimate.samples,
            "act": estimate.activations,
            "act ckpt": estimate.checkpointed,
            "sum": estimate.state + kept,
        }
        rows.append((count, sizes, estimate))
    _, sizes, estimate = rows[0]  # one process always fits the batch
    columns = [name for name in sizes if name not in _SOMETIMES or sizes[name]]
    height, width = config.data.size
    table = Table(
        *("GPUs", *columns, "s/step"),
        title=f"Estimate, GiB per GPU at {height}x{width} pixels",
        title_justify="left",
        box=SIMPLE,
        pad_edge=False,
    )
    for count, sizes, each in rows:
        table.add_row(str(count), *(_gib(sizes[name]) for name in columns), f"{each.seconds:.3g}")
    console = Console()
    console.print(
        f"{total / 1e6:,.0f} M parameters, {trained / 1e6:,.0f} M trained; a step of {config.batch_size} samples: "
        f"{estimate.tokens:,} tokens, {estimate.flops / 1e12:,.0f} TFLOP"
    )
    console.print(table)
    if config.data.on_device and not costs.resident:
        say("The samples of data.on_device are not encoded yet, so that their memory is not counted.")
    say(
        "This is an estimate from shapes, not a measurement. act: activations of a micro-batch; act ckpt: with blocks "
        f"computed again in the backward pass, which this configuration does"
        f"{'' if config.scale.checkpoint_activations else ' not do'}. Time: "
        f"{plan.UTILIZATION:.0%} of {plan.PEAK_TFLOPS:g} TFLOP/s a GPU, an H100's bfloat16."
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f}"
