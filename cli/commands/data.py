"""``mforce data``: look at training data, convert and encode it, give pictures depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ...mforce_core.release import STEPS
from ..errors import report_errors
from . import options

app = typer.Typer(name="data", help="Training data: check, convert, encode and label it.", no_args_is_help=True)

Sources = Annotated[
    list[str],
    typer.Argument(
        help="Tars, patterns of tars such as 'shards/{000..099}.tar', or folders; also URLs such as s3://...",
        show_default=False,
    ),
]
Report = Annotated[Path | None, typer.Option("--json", help="Also write the report here.")]


@app.command()
def check(
    sources: Sources,
    words: Annotated[
        Path | None, typer.Option(help="Word-level text encoder: name words that it does not know.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything is broken.")] = False,
    report: Report = None,
    debug: options.Debug = False,
) -> None:
    """Count, measure and list what is broken. Exits with 1 if nothing is usable."""
    with report_errors(debug):
        from ...mforce_core import load_text_encoder
        from ...training.data.check import check as look
        from ...training.data.shards import find_shards
        from ..progress import progress_bar, say
        from ..tables import print_counts

        shards = find_shards(sources)
        known = None if words is None else load_text_encoder(words)
        with progress_bar("Checking shards") as advance:
            done = iter(range(1, len(shards) + 1))
            found = look(shards, known, lambda: advance(next(done), len(shards)))
        _write(report, found)
        lists = {name: found.pop(name) for name in ("broken", "notes", "duplicate_keys")}
        print_counts({**found, **{name: len(entries) for name, entries in lists.items()}})
        _list_broken(lists["broken"])
        for note in lists["notes"]:
            say(f"Note, {note['count']} of {found['usable']} samples, as in {note['key']}: {note['reason']}")
        if not found["usable"] or (strict and (lists["broken"] or lists["duplicate_keys"])):
            raise typer.Exit(1)


@app.command()
def convert(
    name: Annotated[str, typer.Argument(metavar="SET", help="argoverse2, hypersim, ...: docs/data-sets.md has all.")],
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder that the data set was unpacked to.")],
    out: Annotated[Path, typer.Argument(help="Folder of the tars; finished ones are kept.")],
    every: Annotated[int, typer.Option(help="Take only the first of so many frames in a row.", min=1)] = 1,
    debug: options.Debug = False,
) -> None:
    """Make shards of a well-known data set in its own layout."""
    with report_errors(debug):
        from ...training.data.convert import convert as make
        from ..progress import say

        written, broken = 0, []
        for shard in make(name, source, out, every):
            written += shard.written
            broken += [entry._asdict() for entry in shard.broken]
            say(f"{shard.name}: {'kept' if shard.kept else f'{shard.written} frames'}")
        _list_broken(broken)
        say(f"{written} frames written.")
        print(out)


@app.command()
def encode(
    sources: Sources,
    out: Annotated[Path, typer.Argument(help="Folder of the encoded shards; finished ones are kept.")],
    vae: Annotated[Path, typer.Option(help="Autoencoder, file or folder.")],
    text_encoder: Annotated[
        Path | None,
        typer.Option(help="Word-level text encoder, or folder with Qwen3. Without it captions are stored as they are."),
    ] = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="Of the pictures in pixels, multiples of 16.")] = "512",
    fit: Annotated[str, typer.Option(help="crop cuts the middle out, pad letterboxes.")] = "crop",
    buckets: Annotated[
        bool, typer.Option("--buckets", help="Canvases of several shapes; --size is the longer side.")
    ] = False,
    views: Annotated[int, typer.Option(help="Rows a sample: the middle, then random crops and flips.", min=1)] = 1,
    depth: Annotated[bool, typer.Option(help="Leave out samples without depth, or leave depth out.")] = True,
    seed: Annotated[int, typer.Option(help="Of random crops and flips.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Pictures that are encoded together.", min=1)] = 64,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps...")] = "cpu",
    ray: options.Ray = 0,
    ray_gpus: options.RayGpus = 0,
    debug: options.Debug = False,
) -> None:
    """Make latents, depth and text features of samples, for training to read."""
    with report_errors(debug):
        from ...training.data.encode import ENCODE_REPORT, EncodeSettings, ShardEncoder
        from ...training.data.shards import find_shards
        from ...training.data.workers import map_items
        from ..progress import progress_bar, say
        from .values import parse_size

        if fit not in ("crop", "pad"):
            raise ValueError(f"--fit {fit} is unknown: choose crop or pad")
        width, height = parse_size(size) or (0, 0)
        words = None if text_encoder is None else str(text_encoder.absolute())
        settings = EncodeSettings(
            str(vae.absolute()), words, (height, width), "pad" if fit == "pad" else "crop", views, depth, seed,
            batch_size, device, buckets,
        )  # fmt: skip
        shards = find_shards(sources)
        out = out.absolute()
        rows, broken, failed = 0, [], []
        with progress_bar("Encoding shards") as advance:
            results = map_items(ShardEncoder, (settings, out), shards, ray_workers=ray, gpus_per_worker=ray_gpus)
            for done, result in enumerate(results, 1):
                rows += result.rows
                broken += [entry._asdict() for entry in result.broken]
                failed += [result.error] if result.error else []
                advance(done, len(shards))
        parts = {"vae": settings.vae, "text_encoder": settings.text_encoder}
        _write(
            out / ENCODE_REPORT,
            {"rows": rows, "parts": parts, "facts": settings.facts(), "broken": broken, "failed": failed},
        )
        _list_broken(broken)
        for error in failed:
            say(f"Not encoded: {error}. Run the same command again for it.")
        say(f"{rows} rows in {len(shards) - len(failed)} shards.")
        print(out)
        if failed or not rows:
            raise typer.Exit(1)


@app.command()
def label(
    sources: Sources,
    out: Annotated[
        Path | None, typer.Option(help="Folder for new tars. Folders get depth beside their pictures.")
    ] = None,
    model: options.Model = "nano",
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    size: Annotated[int | None, typer.Option(help="Side of the model's square. Default: what it was made for.")] = None,
    steps: options.Steps = STEPS,
    seed: options.Seed = 0,
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.", min=1)] = 8,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    ray: options.Ray = 0,
    ray_gpus: options.RayGpus = 0,
    debug: options.Debug = False,
) -> None:
    """Give pictures without depth the depth that a model sees in them."""
    with report_errors(debug):
        from ...mforce_core.settings import Settings
        from ...training.data.label import Labeler, LabelSettings
        from ...training.data.shards import find_shards
        from ...training.data.workers import map_items
        from ..generation import prepare
        from ..progress import progress_bar, say

        given = Settings(
            "joint",
            "",
            steps=steps,
            seed=seed,
            model=model,
            text_encoder=None if text_encoder is None else str(text_encoder),
            vae=None if vae is None else str(vae),
            size=None if size is None else (size, size),
            device=device,
            dtype=dtype,
        )
        found, parts = prepare(given)
        settings = LabelSettings(
            str(parts.model.absolute()), str(parts.vae.absolute()), str(parts.text_encoder.absolute()),
            found.canvas[0], steps, seed, batch_size, found.device, found.dtype,
        )  # fmt: skip
        shards = find_shards(sources)
        written, kept, broken, failed = 0, 0, [], []
        arguments = (settings, None if out is None else out.absolute())
        with progress_bar("Labeling shards") as advance:
            results = map_items(Labeler, arguments, shards, ray_workers=ray, gpus_per_worker=ray_gpus)
            for done, result in enumerate(results, 1):
                written, kept = written + result.written, kept + result.kept
                broken += [entry._asdict() for entry in result.broken]
                failed += [result.error] if result.error else []
                advance(done, len(shards))
        _list_broken(broken)
        for error in failed:
            say(f"Not finished: {error}. Run the same command again for it.")
        say(f"{written} pictures got depth, {kept} had it already.")
        if failed:
            raise typer.Exit(1)


#: Broken samples that are printed; the JSON report has all.
_PRINTED = 20


def _list_broken(broken: list[dict[str, str]]) -> None:
    from ..progress import say

    for entry in broken[:_PRINTED]:
        say(f"Broken: {entry['shard']}{', ' + entry['key'] if entry['key'] else ''}: {entry['reason']}.")
    if len(broken) > _PRINTED:
        say(f"... and {len(broken) - _PRINTED} more; the JSON report lists all.")


def _write(path: Path | None, report: dict) -> None:
    if path is not None:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
