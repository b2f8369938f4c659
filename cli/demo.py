"""All three modes, one after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..mforce_core.release import CFG, LOG2_ALPHA, STEPS
from ..mforce_core.results.folder import check_output
from ..mforce_core.rollout_settings import fitted
from ..mforce_core.settings import Settings
from .generation import generate_folder, load_pipeline, numbered, prepare
from .progress import say

_SCENES = ("a red sphere on a wooden floor", "a blue cube and a yellow cone on a checkered floor")
_REPAINT = "a green sphere on a concrete floor"


def run_demo(output: Path, model: str, steps: int | None, seed: int, device: str, *, overwrite: bool = False) -> None:
    """Text to RGB-D, depth of the first picture, a new picture on that depth: folders in ``output``.

    Args:
        steps: None for the release's number, or that of a model of few steps.
    """
    names = ("1-text-to-image-and-depth", "2-image-to-depth", "3-depth-to-image")
    folders = [output / name for name in names]
    for folder in folders:
        check_output(folder, overwrite=overwrite)
    base = Settings(
        "joint",
        _SCENES[0],
        seed=seed,
        steps=STEPS if steps is None else steps,
        tilt=LOG2_ALPHA,
        model=model,
        device=device,
        cfg=CFG["joint"],
    )
    base, parts = prepare(base)
    distilled, given = parts.header().config.distilled, () if steps is None else ("steps",)
    scenes = zip(numbered(fitted(base, distilled, given), len(_SCENES)), _SCENES, strict=True)
    joint = [replace(job, prompt=prompt) for job, prompt in scenes]
    first = folders[0].absolute() / "000"
    alone = replace(base, tilt=None)
    i2d = replace(alone, mode="i2d", prompt="", cfg=CFG["i2d"], input=str(first / "rgb.png"))
    d2i = replace(alone, mode="d2i", prompt=_REPAINT, cfg=CFG["d2i"], input=str(first / "depth.npy"))
    i2d, d2i = (fitted(job, distilled, given) for job in (i2d, d2i))
    pipeline = load_pipeline([*joint, i2d, d2i], parts)
    for folder, jobs in zip(folders, (joint, [i2d], [d2i]), strict=True):
        generate_folder(jobs, parts, folder, overwrite=overwrite, pipeline=pipeline)
    say("Done. One picture of each result; the depth maps and point clouds lie beside it:")
    for folder in folders:
        print(folder / "sheet.png")
