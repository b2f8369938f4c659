"""``mforce eval depth``: a data set, something that predicts, a protocol, and a folder with the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..evaluation.depth.alignment import Kind
from ..evaluation.depth.datasets import DataSpec, open_data
from ..evaluation.depth.predictors import FromFiles, FromModel, FromPeer, PredictorSpec, open_predictor
from ..evaluation.depth.protocols import Protocol, protocol
from ..evaluation.depth.scorer import DepthJob, Scorer, stamp_of_picture
from ..evaluation.report import depth_tiles, write_report, write_sheet
from ..evaluation.stamps import folder_stamp
from ..evaluation.table import Table
from ..mforce_core.results.provenance import identify
from .progress import progress_bar, say
from .spread import Workers, spread

#: Pictures on the sheet of the worst, and failures that are printed.
_WORST, _PRINTED = 8, 10


def evaluate_depth(
    data: DataSpec,
    predictor: PredictorSpec,
    protocol_name: str | None,
    alignments: Sequence[str],
    output: Path,
    *,
    normals: bool = False,
    overwrite: bool,
    workers: Workers,
    first: int | None = None,
) -> dict[str, Any]:
    """Score a data set; a stopped run goes on in its folder.

    Args:
        data: which, and where.
        predictor: what predicts.
        protocol_name: moge, marigold, or None for that of the data's layout.
        alignments: instead of the protocol's own.
        output: folder of the results.
        normals: measure the normals that depth implies, too.
        overwrite: start again in a folder with results.
        workers: where it runs.
        first: only so many pictures from the beginning.

    Returns:
        See `write_report`.

    Raises:
        ValueError: nothing can be scored like this.
    """
    found, own_protocol = open_data(data)
    wanted = protocol(
        protocol_name or own_protocol,
        tuple(alignments),
        kind="depth" if isinstance(predictor, FromModel) else predictor.kind,
        affine=not isinstance(predictor, FromFiles) and predictor.affine,
        normals=normals,
    )
    job = DepthJob(data, predictor, wanted)
    names = found.names[:first]
    saved = open_predictor(predictor, "cpu", say, found.names) if isinstance(predictor, FromFiles) else None
    table = Table(output, _settings(job, names), overwrite=overwrite)
    table.drop_changed({name: stamp_of_picture(found, saved, index) for index, name in enumerate(names)})
    todo = [index for index, name in enumerate(names) if name not in table.rows]
    facts = [
        f"{found.title}, {len(names)} pictures, {found.preparation}",
        describe(predictor),
        wanted.describe(found.limits),
    ]
    try:
        with progress_bar(found.title) as advance:
            advance(len(names) - len(todo), len(names))
            for done, row in enumerate(spread(Scorer, job, todo, workers), len(names) - len(todo) + 1):
                table.add(row)
                advance(done, len(names))
    finally:
        table.close()
    if len(table.failures) == len(names):
        raise ValueError(f"No picture could be scored: {table.failures[0].name}: {table.failures[0].reason}.")
    _write_worst(output / "worst.jpg", job, table, names, workers)
    for row in table.failures[:_PRINTED]:
        say(f"Not scored: {row.name}: {row.reason}.")
    return write_report(output, f"Depth on {found.title}", facts, table)


def describe(predictor: PredictorSpec) -> str:
    """What predicts, in words."""
    if isinstance(predictor, FromModel):
        settings = predictor.settings
        size = "{}x{}".format(*settings.canvas)
        members = (
            f"ensemble of {predictor.members} by {predictor.method}" if predictor.members > 1 else "one map per picture"
        )
        return (
            f"{settings.model}, image to depth in {settings.steps} steps, guidance {settings.cfg:g}, "
            f"seed {settings.seed}, at about as many pixels as {size} in the picture's proportions, "
            f"{settings.dtype}, {members}"
        )
    if isinstance(predictor, FromFiles):
        return f"saved {predictor.kind} of {predictor.folder}"
    return f"{predictor.name}, {predictor.kind}, ensemble of {predictor.members}, seed {predictor.seed}"


def _settings(job: DepthJob, names: Sequence[str]) -> Mapping[str, Any]:
    """Everything that decides the numbers."""
    predictor = job.predictor
    if isinstance(predictor, FromModel):
        files = predictor.parts.files()
        weights = {part: {file.name: identify(file) for file in files[part]} for part in files}
        made_by: Mapping[str, Any] = {
            "settings": predictor.settings.decisive(),
            "members": predictor.members,
            "method": predictor.method,
            "files": weights,
        }
    else:
        made_by = {name: str(value) for name, value in asdict(predictor).items()} | weights_of(predictor)
    return {
        "data": {
            name: None if value is None else str(value) for name, value in asdict(job.data).items() if name != "own"
        },
        "pictures": len(names),
        "protocol": _protocol(job.protocol),
        "predictor": type(predictor).__name__,
        "made_by": made_by,
    }


def weights_of(predictor: PredictorSpec) -> dict[str, Any]:
    """What tells that another project's model in a folder has changed."""
    folder = Path(predictor.name.partition(":")[2]) if isinstance(predictor, FromPeer) else None
    return {"weights": folder_stamp(folder)} if folder is not None and folder.exists() else {}


def _protocol(wanted: Protocol) -> Mapping[str, Any]:
    return {
        "name": wanted.name,
        "alignments": list(wanted.alignments),
        "epsilon": wanted.epsilon,
        "negative_hits": wanted.negative_hits,
        "normals": wanted.normals,
    }


def _write_worst(path: Path, job: DepthJob, table: Table, names: Sequence[str], workers: Workers) -> None:
    """A sheet of the pictures with the largest AbsRel, which are predicted once more for it."""
    measure = f"{job.protocol.alignments[0]}.absrel"
    scored = [name for name in names if measure in table.rows[name].measures]
    worst = sorted(scored, key=lambda name: -table.rows[name].measures[measure])[:_WORST]
    scorer = Scorer(job, workers.devices[0])
    sheet = {}
    for name in worst:
        shown = scorer.shown(names.index(name))
        sheet[name] = depth_tiles(*shown), f"{measure} {table.rows[name].measures[measure]:.4f}"
    write_sheet(path, sheet)


def predictor_from(
    settings_and_parts: tuple[Any, Any] | None,
    *,
    predictions: Path | None,
    peer: str | None,
    kind: Kind,
    members: int,
    seed: int,
    method: str,
) -> PredictorSpec:
    """The description of what predicts, from the options.

    Raises:
        ValueError: options that exclude each other.
    """
    if predictions is not None and peer is not None:
        raise ValueError("--predictions and --peer exclude each other.")
    if predictions is not None:
        if members != 1:
            raise ValueError("--ensemble is for models; saved maps are scored as they are.")
        return FromFiles(predictions.absolute(), kind)
    if peer is not None:
        return FromPeer(peer, kind, members, seed)
    if kind != "depth":
        raise ValueError("--kind is for --predictions and --peer: this project's models predict depth.")
    assert settings_and_parts is not None
    if method not in ("marigold", "median"):
        raise ValueError(f"--ensemble-method is marigold or median, not {method}.")
    return FromModel(*settings_and_parts, members, "median" if method == "median" else "marigold")
