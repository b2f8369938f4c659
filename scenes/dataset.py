"""Scenes on disk: safetensors shards with the captions in the header, or WebDataset tars."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .captions import captions
from .layout import FOV_DEGREES, sample_layouts
from .render import render
from .views import sample_views
from .webdataset import Scenes, tar_facts, write_tar

Format = Literal["safetensors", "webdataset"]

_RENDER_BATCH = 256
_WORTH_COMPILING = 1000

#: Rays along each side of a pixel.
_SUPERSAMPLE = 2

_ENDINGS: dict[Format, str] = {"safetensors": "safetensors", "webdataset": "tar"}


@dataclass(frozen=True)
class Shard:
    """A shard on disk, each part read when it is asked for. ValueError where the file does not have it."""

    path: Path

    @property
    def rgb(self) -> Tensor:
        """(n, 3, H, W) uint8."""
        return self._tensor("rgb")

    @property
    def depth(self) -> Tensor:
        """(n, H, W) float16 meters."""
        return self._tensor("depth")

    @property
    def captions(self) -> list[str]:
        with self._open() as shard:
            words = (shard.metadata() or {}).get("captions")
        if words is None:
            raise ValueError(f"{self.path} has no captions, so it is not a shard of scenes.")
        try:
            captions = json.loads(words)
        except (ValueError, RecursionError):
            captions = None
        if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
            raise ValueError(f"{self.path} has captions that are not a list of texts: write it again.")
        return captions

    def _tensor(self, name: str) -> Tensor:
        with self._open() as shard:
            if name not in shard.keys():  # noqa: SIM118 - a safetensors handle is not a mapping
                raise ValueError(f"{self.path} has no tensor named {name}, so it is not a shard of scenes.")
            return shard.get_tensor(name)

    def _open(self) -> safe_open:
        try:
            return safe_open(self.path, framework="pt")
        except (SafetensorError, OSError, MemoryError) as error:
            raise ValueError(f"{self.path} is damaged ({error}): delete it and write it again.") from None


def write_dataset(
    out: str | Path,
    count: int,
    seed: int = 0,
    size: int = 128,
    shard_size: int = 2048,
    progress: bool = True,
    format: Format = "safetensors",
    views: float = 0.0,
    device: str = "cpu",
) -> list[Path]:
    """Write `count` scenes of sequence `seed` as `scenes-00000.safetensors` (or `.tar`), ... and return the paths.

    `views` is the share of scenes that are seen as crops, through wider lenses or by moved cameras; see `sample_views`.
    `device` renders; a GPU's numbers differ from the CPU's by rounding. Shards that are already complete are kept, so
    a run that was stopped continues where it was. Raises ValueError if a shard in the folder was written with another
    seed, size, shard size or share of views.
    """
    if count < 1 or shard_size < 1:
        raise ValueError(f"count and shard_size must be at least 1; got {count} and {shard_size}.")
    # Only writing wants a progress bar: reading and rendering work without the training extra.
    from tqdm import tqdm

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    with tqdm(total=count, unit="scene", disable=not progress, mininterval=1.0) as bar:
        for number, start in enumerate(range(0, count, shard_size)):
            path = out / f"scenes-{number:05d}.{_ENDINGS[format]}"
            n = min(shard_size, count - start)
            facts: dict[str, Any] = {
                "seed": seed,
                "start": start,
                "count": n,
                "size": size,
                "supersample": _SUPERSAMPLE,
                **({"views": views} if views else {}),
            }
            if path.exists():
                found = tar_facts(path) if format == "webdataset" else _shard_facts(path)
                if found != facts:
                    raise ValueError(
                        f"{path} holds other scenes ({found}) than asked for ({facts}); choose an empty folder."
                    )
                bar.update(n)
            else:
                scenes = _render_shard(facts, bar.update, device)
                partial = path.with_suffix(".partial")
                (write_tar if format == "webdataset" else _write_safetensors)(partial, scenes, facts)
                # Renaming is atomic: a shard under its final name is always whole.
                partial.replace(path)
            paths.append(path)
    return paths


def _render_shard(facts: dict[str, Any], advance: Callable[[int], object], device: str) -> Scenes:
    n, size, views = facts["count"], facts["size"], facts.get("views", 0.0)
    scenes = Scenes(torch.empty(n, 3, size, size, dtype=torch.uint8), torch.empty(n, size, size).half(), [])
    for first in range(0, n, _RENDER_BATCH):
        last = min(first + _RENDER_BATCH, n)
        number = facts["start"] + first
        layout = sample_layouts(last - first, facts["seed"], number)
        camera, shown = sample_views(layout, facts["seed"], number, share=views)
        compiled = n >= _WORTH_COMPILING
        picture, distance = render(layout, size, facts["supersample"], camera=camera, compiled=compiled, device=device)
        scenes.rgb[first:last] = (picture * 255.0).round().to(torch.uint8)
        scenes.depth[first:last] = distance.to(torch.float16)
        scenes.captions.extend(captions(shown))
        advance(last - first)
    return scenes


def _write_safetensors(path: Path, scenes: Scenes, facts: dict[str, Any]) -> None:
    metadata = {"captions": json.dumps(scenes.captions), "facts": json.dumps(facts)}
    if "views" not in facts:  # otherwise every scene has its own
        metadata["fov_degrees"] = str(FOV_DEGREES)
    save_file({"rgb": scenes.rgb, "depth": scenes.depth}, path, metadata)


def _shard_facts(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as shard:
        return json.loads((shard.metadata() or {}).get("facts", "{}"))


def read_shards(folder: str | Path) -> list[Shard]:
    """The shards of a folder in order. Raises ValueError if it holds none."""
    paths = sorted(Path(folder).glob("*.safetensors"))
    if not paths:
        raise ValueError(
            f"There are no .safetensors shards of scenes in {folder}: write some with python -m mforce.scenes."
        )
    return [Shard(path) for path in paths]
