"""The report of a run: ``report.md`` with numbers and plots, beside the model."""

import math
from importlib.util import find_spec
from pathlib import Path

from .config import TrainConfig
from .heldout import sheets
from .log import loss_terms, read_log
from .plots import two_plots

_PLOT = "curves.png"


def write_report(config: TrainConfig) -> Path:
    """From the log alone, so that it can be written again at any time; without matplotlib there are no plots."""
    entries = read_log(config.out)
    training = [entry for entry in entries if loss_terms(entry)]
    looks = [entry for entry in entries if "heldout_absrel" in entry]
    lines = [f"# {config.out.name}: stage {config.stage}", ""]
    lines += [f"{config.batch_size} samples a step, {config.trainable} weights trained, {config.precision}, "
              f"{config.optimizer.name} at {config.optimizer.learning_rate:g}, seed {config.seed}.", ""]  # fmt: skip
    if training:
        first, last = training[0], training[-1]
        lines += ["| loss | step " + f"{first['step']:g} | step {last['step']:g} |", "|---|---|---|"]
        lines += [
            f"| {name} | {first.get(name, math.nan):.4g} | {value:.4g} |" for name, value in loss_terms(last).items()
        ]
        rate = last.get("mean_images_per_second", last["images_per_second"])
        memory = f", {last['memory_gib']:.2f} GiB per process at most" if "memory_gib" in last else ""
        lines += ["", f"{rate:.3g} images/s{memory}.", ""]
    if looks:
        best = min(looks, key=lambda entry: entry["heldout_absrel"])
        lines += ["| step | held-out AbsRel, image to depth |", "|---|---|"]
        lines += [f"| {entry['step']:g} | {entry['heldout_absrel']:.4f} |" for entry in looks]
        lines += ["", f"Lowest at step {best['step']:g}.", ""]
    if not training:
        lines += ["No step was logged.", ""]
    elif find_spec("matplotlib") is None:
        lines += ["Plots need matplotlib: pip install 'comfyui-modality-forcing[train]'.", ""]
    else:
        _plot(training, looks, config.out / _PLOT)
        lines += [f"![losses]({_PLOT})", ""]
    pictures = sheets(config.out)
    if pictures:
        where = pictures[-1].relative_to(config.out).as_posix()
        lines += ["Held-out: given image, its depth, image to depth, joint image and depth, depth to image.", ""]
        lines += [f"![samples]({where})", ""]
    path = config.out / "report.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _plot(training: list[dict[str, float]], looks: list[dict[str, float]], path: Path) -> None:
    steps = [entry["step"] for entry in training]
    with two_plots(path) as (_, left, right):
        for name in loss_terms(training[-1]):
            left.plot(steps, [entry.get(name, math.nan) for entry in training], label=name, linewidth=1)
        left.set(xlabel="step", ylabel="loss", yscale="log")
        left.legend()
        if looks:
            right.plot([entry["step"] for entry in looks], [entry["heldout_absrel"] for entry in looks], marker="o")
            right.set(xlabel="step", ylabel="held-out AbsRel")
        else:
            right.plot(steps, [entry["gradient_norm"] for entry in training], linewidth=1)
            right.set(xlabel="step", ylabel="gradient norm", yscale="log")
