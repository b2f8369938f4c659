"""Scenes on disk: safetensors shards with the captions in the header."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .captions import captions
from .layout import FOV_DEGREES, sample_layouts
from .render import render

_RENDER_BATCH = 256
_WORTH_COMPILING = 1000


@dataclass(frozen=True)
class Shard:
    """rgb (n, 3, H, W) uint8, depth (n, H, W) float16 metres, and n captions."""

    path: Path
    rgb: Tensor
    depth: Tensor
    captions: list[str]


def write_dataset(
    out: str | Path,
    count: int,
    seed: int = 0,
    size: int = 128,
    shard_size: int = 2048,
    supersample: int = 2,
    progress: bool = True,
) -> list[Path]:
    """Write `count` scenes of sequence `seed` as `scenes-00000.safetensors`, ... and return the paths.

    Shards that are already complete are kept, so a run that was stopped continues where it was. Raises
    ValueError if a shard in the folder was written with another seed, size or shard size.
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
            path = out / f"scenes-{number:05d}.safetensors"
            n = min(shard_size, count - start)
            facts = {"seed": seed, "start": start, "count": n, "size": size, "supersample": supersample}
            if path.exists():
                _check(path, facts)
                bar.update(n)
            else:
                _write_shard(path, facts, bar.update)
            paths.append(path)
    return paths


def _write_shard(path: Path, facts: dict[str, int], advance: Callable[[int], object]) -> None:
    n, size = facts["count"], facts["size"]
    rgb = torch.empty(n, 3, size, size, dtype=torch.uint8)
    depth = torch.empty(n, size, size, dtype=torch.float16)
    words: list[str] = []
    for first in range(0, n, _RENDER_BATCH):
        last = min(first + _RENDER_BATCH, n)
        layout = sample_layouts(last - first, facts["seed"], facts["start"] + first)
        picture, distance = render(layout, size, facts["supersample"], compiled=n >= _WORTH_COMPILING)
        rgb[first:last] = (picture * 255.0).round().to(torch.uint8)
        depth[first:last] = distance.to(torch.float16)
        words += captions(layout)
        advance(last - first)
    metadata = {"captions": json.dumps(words), "facts": json.dumps(facts), "fov_degrees": str(FOV_DEGREES)}
    partial = path.with_suffix(".partial")
    save_file({"rgb": rgb, "depth": depth}, partial, metadata)
    # Renaming is atomic: a shard under its final name is always whole.
    partial.replace(path)


def _check(path: Path, facts: dict[str, int]) -> None:
    with safe_open(path, framework="pt") as shard:
        found = json.loads((shard.metadata() or {}).get("facts", "{}"))
    if found != facts:
        raise ValueError(f"{path} holds other scenes ({found}) than asked for ({facts}); choose an empty folder.")


def read_shards(folder: str | Path) -> Iterator[Shard]:
    """Read the shards of a folder in order. Raises FileNotFoundError if it holds none."""
    paths = sorted(Path(folder).glob("scenes-*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"No scenes-*.safetensors in {folder}; write some with mforce.training.scenes first.")
    for path in paths:
        with safe_open(path, framework="pt") as shard:
            words = json.loads(shard.metadata()["captions"])
            yield Shard(path, shard.get_tensor("rgb"), shard.get_tensor("depth"), words)
