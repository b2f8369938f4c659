"""``mforce eval d2i``: pictures made from the depth of real ones, and what is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..evaluation import intervals
from ..evaluation.depth.alignment import AFFINE_ALIGNMENTS, ALIGNMENTS, Limits, formula
from ..evaluation.depth.predictors import FromFiles
from ..evaluation.images.estimates import MADE, REAL, SavedEstimates
from ..evaluation.images.libraries import FID_SETTINGS, clip_scores, distances
from ..evaluation.images.maker import ImageJob, PictureMaker, open_pairs
from ..evaluation.report import write_report
from ..evaluation.table import Table
from ..mforce_core.optional import need
from ..mforce_core.results.provenance import identify
from .depth_evaluation import describe, weights_of
from .progress import progress_bar, say
from .spread import Workers, spread


def evaluate_images(
    job: ImageJob, *, first: int | None, fid: str | None, clip: str | None, overwrite: bool, workers: Workers
) -> dict[str, Any]:
    """Make and judge pictures; a stopped run goes on in its folder.

    Args:
        job: what is made and how it is judged.
        first: only so many from the beginning.
        fid: of `FID_SETTINGS`; None: no FID.
        clip: a CLIP of transformers; None: no CLIP score.
        overwrite: start again in a folder with results.
        workers: where it runs.

    Returns:
        See `write_report`.

    Raises:
        ValueError: nothing can be made like this.
    """
    if job.alignment not in ALIGNMENTS or ALIGNMENTS[job.alignment].wants != "depth":
        raise ValueError(f"Estimated maps are aligned as they are: {job.alignment} is not for that.")
    if getattr(job.estimator, "affine", False) and job.alignment not in AFFINE_ALIGNMENTS:
        raise ValueError(
            f"The estimator's maps have neither scale nor shift: --align is {' or '.join(AFFINE_ALIGNMENTS)} then, not "
            f"{job.alignment}."
        )
    if fid is not None and fid not in FID_SETTINGS:
        raise ValueError(f"FID has the settings {', '.join(FID_SETTINGS)}, not {fid}.")
    if fid is not None:
        module = "torch_fidelity" if fid == "torch-fidelity" else "cleanfid"
        need(module, "FID", module.replace("_", "-").replace("cleanfid", "clean-fid"))  # not after hours of sampling
    pairs = open_pairs(job.pairs)
    names = pairs.names[:first]
    table = Table(job.output, _settings(job, len(names)), overwrite=overwrite)
    if overwrite:
        _keep(job.output / MADE, [])
    saved = SavedEstimates(job.estimator, job.output, pairs.names) if isinstance(job.estimator, FromFiles) else None
    if saved is not None:
        table.drop_changed({name: saved.stamp(REAL, name) + saved.stamp(MADE, name) for name in names})
    todo = [index for index, name in enumerate(names) if name not in table.rows]
    try:
        with progress_bar("d2i") as advance:
            advance(len(names) - len(todo), len(names))
            for done, row in enumerate(spread(PictureMaker, job, todo, workers), len(names) - len(todo) + 1):
                table.add(row)
                advance(done, len(names))
    finally:
        table.close()
    for row in table.failures[:10]:
        say(f"Not made: {row.name}: {row.reason}.")
    if saved is not None and (waiting := [row.name for row in table.failures if _is_there(job, row.name)]):
        raise ValueError(
            f"{len(waiting)} of {len(names)} pictures wait for a map, the first is {waiting[0]}: estimate depth of the "
            f"pictures in {job.output / REAL} and {job.output / MADE}, save it under their names in "
            f"{saved.folder / REAL} and {saved.folder / MADE}, and run the command again."
        )
    if len(table.failures) == len(names):
        raise ValueError("No picture could be made.")
    settings = job.settings
    facts = [
        f"{pairs.title}, {len(names)} pictures, their middle at {'{}x{}'.format(*settings.canvas)}",
        f"{settings.model}, depth to image in {settings.steps} steps, guidance {settings.cfg:g}, seed {settings.seed}",
        f"depth is followed as seen by: {describe(job.estimator)}; alignment {job.alignment}: "
        f"{formula(job.alignment, Limits())}",
    ]
    extra: dict[str, float] = {}
    made = [name for name in names if not table.rows[name].reason]
    if fid is not None:
        facts.append(f"FID and KID by {FID_SETTINGS[fid]}, {len(made)} pictures on either side")
        for folder in (REAL, MADE):
            _keep(job.output / folder, made)
        extra |= distances(job.output / REAL, job.output / MADE, fid, workers.devices[0])
    if clip is not None:
        prompts = [pairs.read(names.index(name)).caption for name in made]
        scores = clip_scores([job.output / MADE / f"{n}.png" for n in made], prompts, clip, workers.devices[0])
        estimate = intervals.mean(torch.tensor(scores, dtype=torch.float64))
        facts.append(f"CLIP score by {clip}: {estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})")
        extra["clip"] = estimate.value
    return write_report(job.output, f"Depth to image on {pairs.title}", facts, table, extra)


def _is_there(job: ImageJob, name: str) -> bool:
    """Whether a picture could be read and was written down for an estimator."""
    return (job.output / REAL / f"{name}.png").is_file()


def _keep(folder: Path, names: Sequence[str]) -> None:
    """Remove pictures of other names: those of a run that was overwritten, and those that could not be judged."""
    kept = {f"{name}.png" for name in names}
    for path in folder.glob("*.png"):
        if path.name not in kept:
            path.unlink()


def _settings(job: ImageJob, count: int) -> dict[str, Any]:
    """Everything that decides the pictures and their measures."""
    return {
        "pairs": [str(job.pairs.listing), str(job.pairs.folder), job.pairs.seed],
        "list": None if job.pairs.listing is None else identify(job.pairs.listing),
        "pictures": count,
        "settings": job.settings.decisive(),
        "files": {part: [identify(file) for file in files] for part, files in job.parts.files().items()},
        "estimator": {"is": describe(job.estimator), **weights_of(job.estimator)},
        "alignment": job.alignment,
        "far_to_near": job.far_to_near,
    }
