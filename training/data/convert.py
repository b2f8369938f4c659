"""From a data set in its own layout to shards that every command here reads."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...mforce_core.text_file import read_text
from ...mforce_core.whole_file import whole_file
from .layouts.frame import Frame, Listed
from .layouts.registry import DATA_SETS, DataSet
from .sample import Broken
from .whole_tar import whole_tar

#: Frames of a shard.
SHARD = 1000


class Converted(NamedTuple):
    """What became of a shard; ``kept`` where it was there already."""

    name: str
    written: int
    kept: bool
    broken: list[Broken]


def convert(name: str, root: Path, out: Path, every: int = 1) -> Iterator[Converted]:
    """Write ``NAME-NNNNN.tar`` with the frames of a data set, shard by shard.

    A shard appears when it is complete and is kept by a further run of the same frames, which ``NAME.json`` beside the
    shards tells. A frame that cannot be used is left out.

    Args:
        name: of :data:`.layouts.registry.DATA_SETS`.
        root: the folder that the set was unpacked to.
        out: folder of the shards.
        every: of so many frames in a row only the first is taken: neighbors in a video are alike.

    Raises:
        ValueError: an unknown name, a folder that is not there, one without a frame in the set's layout, a shard from
            before that holds other frames.
    """
    if name not in DATA_SETS:
        raise ValueError(f"There is no data set called {name}: choose one of {', '.join(DATA_SETS)}.")
    if not root.is_dir():
        raise ValueError(f"{root} does not exist: give the folder that {name} was unpacked to.")
    data_set = DATA_SETS[name]
    out.mkdir(parents=True, exist_ok=True)
    listed = islice(data_set.frames(root), 0, None, every)
    index, number = out / f"{name}.json", 0
    made: dict[str, str] = json.loads(read_text(index)) if index.exists() else {}
    while frames := list(islice(listed, SHARD)):
        path, mark = out / f"{name}-{number:05d}.tar", _mark(frames)
        if path.exists() and made.get(path.stem, mark) != mark:  # earlier versions noted nothing
            raise ValueError(
                f"{path} was made of other frames than {root} has now, or with another --every: name a new folder."
            )
        yield _shard(frames, data_set, path)
        made[path.stem] = mark
        with whole_file(index) as partial:
            partial.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        number += 1
    if not number:
        raise ValueError(f"{root} holds no frame in the layout of {name}: docs/data-sets.md shows it.")


def _mark(frames: list[Listed]) -> str:
    """What tells a shard's frames from others, by their keys."""
    return hashlib.sha256("\n".join(key for key, _ in frames).encode()).hexdigest()[:16]


def _shard(frames: list[Listed], data_set: DataSet, path: Path) -> Converted:
    if path.exists():
        return Converted(path.stem, 0, True, [])
    broken: list[Broken] = []
    written = 0
    with whole_tar(path) as tar:
        for key, read in frames:
            try:
                files = _files(read(), data_set)
            except (ValueError, OSError, KeyError) as error:
                broken.append(Broken(path.stem, key, " ".join(str(error).split())))
                continue
            tar.write({"__key__": key, **files})
            written += 1
    return Converted(path.stem, written, False, broken)


def _files(frame: Frame, data_set: DataSet) -> dict[str, bytes]:
    """Contents by ending, as :func:`.sample.decode_files` takes them."""
    image = frame.image if isinstance(frame.image, bytes) else _png(frame.image)
    files = {"png" if image.startswith(b"\x89PNG") else "jpg": image}
    if frame.depth is not None:
        if not (np.isfinite(frame.depth) & (frame.depth > 0)).any():
            raise ValueError("its depth holds no measurement")
        files["depth.npz"] = _npz(frame.depth)
    elif frame.points is not None:
        if not len(frame.points):
            raise ValueError("no point lies in the picture")
        files["points.npy"] = _npy(frame.points)
    return files | {"json": json.dumps({"depth_kind": data_set.kind}).encode()}


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def _npz(depth: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, depth=depth.astype(np.float32))
    return file.getvalue()


def _npy(points: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, points.astype(np.float32))
    return file.getvalue()
