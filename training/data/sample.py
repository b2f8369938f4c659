"""One picture with its depth and caption, from the files that belong to it."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch

from ...evaluation.depth.log_png import decode_log_png, is_log_png
from ...mforce_core.depth.arrays import read_npy
from ...mforce_core.depth.files import read_depth
from ...mforce_core.depth.masks import read_mask
from ...mforce_core.picture.files import is_deep_gray, open_image, upright_size
from ...mforce_core.picture.reading import upright_rgb
from ...mforce_core.text_file import text_of
from .points import rasterize
from .views import Size, move_depth

#: What depth numbers are: a unit of length, depth up to a factor, or inverse depth up to a factor.
Kind = Literal["metric", "relative", "disparity"]

Role = Literal["image", "depth", "points", "mask", "caption", "facts"]

_BY_NAME: dict[str, Role] = {
    "depth": "depth",
    "points": "points",
    "lidar": "points",
    "mask": "mask",
    "valid": "mask",
}
_BY_SUFFIX: dict[str, Role] = {
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"), "image"),
    **dict.fromkeys(("npy", "npz", "exr", "pfm"), "depth"),
    "txt": "caption",
    "json": "facts",
}
#: Names that say no more than the suffix does.
_PLAIN_NAMES = ("", "rgb", "image", "caption", "text")
_SUFFIXES: dict[Role, tuple[str, ...]] = {
    "depth": ("png", "npy", "npz", "exr", "pfm", "tif", "tiff"),
    "points": ("npy",),
    "mask": ("png", "npy", "jpg", "jpeg"),
}

#: Camera tag of how a picture was held; 1 is upright.
_ORIENTATION = 0x0112

#: A map with fewer measured pixels than this share is treated as separate points where a picture is enlarged.
SPARSE_SHARE = 0.5


@dataclass(frozen=True)
class Sample:
    """image (H, W, 3) uint8, captions (may be none), depth (H, W) float32 with NaN where not measured, or None.

    ``sparse``: the measurements are separate points and do not stand for the surface between them.
    """

    key: str
    image: np.ndarray
    captions: tuple[str, ...]
    depth: np.ndarray | None = None
    kind: Kind | None = None
    sparse: bool = False
    notes: tuple[str, ...] = ()

    @property
    def caption(self) -> str:
        """The first caption; empty where there is none."""
        return self.captions[0] if self.captions else ""

    def caption_of(self, epoch: int, seed: int) -> str:
        """The caption of an epoch, of several one after another; see `turn`."""
        return self.captions[turn(len(self.captions), epoch, seed, self.key)] if self.captions else ""


def turn(count: int, epoch: int, seed: int, key: str) -> int:
    """Which of ``count`` captions an epoch takes: one after another, from one that ``seed`` and ``key`` choose."""
    if count < 2:
        return 0
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return (int.from_bytes(digest[:4], "big") + epoch) % count


class Broken(NamedTuple):
    """What could not be used, and why. ``key`` is empty where it is the whole shard."""

    shard: str
    key: str
    reason: str


def role_of(ending: str) -> Role | None:
    """What a file is by its ending, ``jpg`` or ``depth.png``; None for what is not used here."""
    name, _, suffix = ending.lower().rpartition(".")
    name = name.rpartition(".")[2]
    role = _BY_NAME.get(name) or (_BY_SUFFIX.get(suffix) if name in _PLAIN_NAMES else None)
    return None if role is None or suffix not in _SUFFIXES.get(role, (suffix,)) else role


def decode_files(key: str, files: Mapping[str, bytes]) -> Sample:
    """Decode the files of a sample.

    Args:
        key: its name.
        files: contents by ending: an image; ``depth.png|npy|exr`` or ``points.npy``, ``mask.png``, ``txt``, ``json``
            where there are. The json may hold ``caption``, ``depth_kind`` and ``depth_scale``.

    Raises:
        ValueError: in one sentence, why it cannot be used.
    """
    found = _endings(files)
    facts = _facts(files[found["facts"]]) if "facts" in found else {}
    captions = _lines(_text(files[found["caption"]])) if "caption" in found else _lines(facts.get("caption"))

    # The readers of depth and image files take paths, as does OpenEXR itself.
    with tempfile.TemporaryDirectory(prefix="mforce-") as folder:
        paths: dict[Role, Path] = {}
        for role in ("image", "depth", "points", "mask"):
            if role in found:
                paths[role] = Path(folder) / f"{role}.{found[role].rpartition('.')[2].lower()}"
                paths[role].write_bytes(files[found[role]])
        try:
            return _decode(key, captions, facts, paths)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{folder}/", "")) from None


def picture_size(files: Mapping[str, bytes]) -> Size:
    """(height, width) that the picture of a sample has when it is decoded, read off its header.

    Args:
        files: as of `decode_files`.

    Raises:
        ValueError: in one sentence, why there is none.
    """
    ending = _endings(files)["image"]
    try:
        return upright_size(files[ending])
    except ValueError as error:
        raise ValueError(f"{ending} {error}") from None


def _endings(files: Mapping[str, bytes]) -> dict[Role, str]:
    """The file of each role, of which there is always an image. Raises ValueError."""
    found: dict[Role, str] = {}
    for ending in sorted(files):
        role = role_of(ending)
        if role in found:
            raise ValueError(f"it has two files for its {role}, {found[role]} and {ending}: keep one")
        if role is not None:
            found[role] = ending
    if "image" not in found:
        raise ValueError(f"it has no image, only {', '.join(sorted(files)) or 'nothing'}")
    return found


def _decode(key: str, captions: tuple[str, ...], facts: dict, paths: dict[Role, Path]) -> Sample:
    image, notes = _read_image(paths["image"], upright="depth" in paths or "points" in paths)
    if "depth" not in paths and "points" not in paths:
        return Sample(key, image, captions, notes=notes)
    kind, scale = _kind_and_scale(facts)
    size = image.shape[:2]
    if "depth" in paths:
        if "points" in paths:
            raise ValueError("it has both a depth map and points: keep one")
        depth, of_depth = _read_map(paths["depth"], kind, paths.get("mask"))
        notes += of_depth
        sparse = float(np.isfinite(depth).mean()) < SPARSE_SHARE
        depth = _at_size(depth, size, sparse)
    else:
        depth, sparse = rasterize(read_npy(paths["points"]), size), True
        if kind == "disparity":
            depth = 1 / depth
    if scale != 1:
        depth = depth / np.float32(scale) if kind == "disparity" else depth * np.float32(scale)
    return Sample(key, image, captions, depth, kind, sparse, notes)


def _read_map(path: Path, kind: Kind, mask: Path | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """A depth map (H, W) with NaN where nothing was measured, and what was noted of it."""
    content = path.read_bytes() if path.suffix == ".png" else b""
    if b"near" in content[:4096] and is_log_png(content, path.name):
        depth = decode_log_png(content, path.name)
        known = np.isfinite(depth) & (depth > 0)
        if mask is not None:
            known &= read_mask(mask, (depth.shape[0], depth.shape[1]))
        if not known.any():
            raise ValueError(f"{path} has no pixel with a depth: all are unknown, sky or masked")
        return np.where(known, depth, np.nan).astype(np.float32), ()
    found = read_depth(path, disparity=kind == "disparity" or None, mask=mask)
    if found.assumed:
        raise ValueError(f"{path} has only 8 bits per pixel: if it is disparity, say depth_kind disparity in its json")
    return found.depth, found.notes


def _read_image(path: Path, *, upright: bool) -> tuple[np.ndarray, tuple[str, ...]]:
    """(H, W, 3) uint8 in sRGB, transparency put on white, and what was noted of it.

    ``upright``: refuse a picture that its camera tag would turn.
    """
    image = open_image(path)
    if is_deep_gray(image):
        raise ValueError(f"{path} has more than 8 bits a channel: is it the depth map? Call that KEY.depth.png")
    if upright and image.getexif().get(_ORIENTATION, 1) != 1:
        raise ValueError(f"{path} is turned by its camera tag and the depth is not: save the picture upright")
    notes: list[str] = []
    return np.asarray(upright_rgb(image, path.name, notes)), tuple(notes)


def _at_size(depth: np.ndarray, size: tuple[int, int], sparse: bool) -> np.ndarray:
    """A map of the whole picture at the picture's size."""
    if depth.shape == size:
        return depth
    (rows, columns), (height, width) = depth.shape, size
    if abs(width - columns * height / rows) > max(1.0, width / columns):
        raise ValueError(f"its depth is {columns}x{rows} and its image {width}x{height}: they must show the same view")
    return move_depth(torch.from_numpy(depth), size, sparse=sparse).numpy()


def _facts(content: bytes) -> dict:
    try:
        facts = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its json cannot be read ({str(error)[:120]})") from None
    if not isinstance(facts, dict):
        raise ValueError("its json is not an object with names and values")
    return facts


def _kind_and_scale(facts: dict) -> tuple[Kind, float]:
    kind, scale = facts.get("depth_kind", "relative"), facts.get("depth_scale", 1.0)
    if kind not in get_args(Kind):
        raise ValueError(f"its depth_kind is {kind!r}: use {', '.join(get_args(Kind))}")
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 < scale <= sys.float_info.max:
        raise ValueError(f"its depth_scale is {scale!r}: use a positive number")
    return kind, float(scale)


def _lines(value: object) -> tuple[str, ...]:
    """Captions: one text, a list of texts, or none; empty ones count as none."""
    texts: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"its caption is {str(value)[:60]!r}: use a text, a list of texts or null")
    return tuple(text.strip() for text in texts if text.strip())


def _text(content: bytes) -> str:
    try:
        return text_of(content).strip()
    except UnicodeDecodeError:
        raise ValueError("its caption is not UTF-8 text") from None
