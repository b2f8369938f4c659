"""The files of one result: picture, depth, point cloud, a sheet of all, and how it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..depth.colormaps import colorize
from ..depth.files import LEVELS, write_16_bit, write_exr, write_float_tiff, write_npy, write_pfm
from ..depth.images import to_levels
from ..depth.preview import depth_preview
from ..scene3d.point_cloud import PointCloud, intrinsics_from_fov
from ..scene3d.point_cloud_files import to_glb, to_ply
from ..settings import Settings
from .cloud_view import draw_cloud
from .contact_sheet import TILE_HEIGHT, contact_sheet, tile_width
from .folder import MARKER

#: Viewpoints of the sheet: title, yaw and pitch in degrees.
_VIEWS = (("point cloud, from the left", -22.0, 8.0), ("point cloud, from the right", 22.0, 20.0))

#: Spread of an ensemble, as a share of the depth, that is brightest in its picture.
_WHITE_SPREAD = 0.2


def check_writers() -> None:
    """Refuse to start where a library that the files need is missing.

    Raises:
        ModuleNotFoundError: with a sentence on how to install it.
    """
    for package in ("OpenEXR", "scipy"):
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"The output files need {package}: pip install {package}.")


def write_files(
    folder: Path, image: np.ndarray, depth: np.ndarray, cloud: PointCloud, settings: Settings, origin: Mapping[str, Any]
) -> None:
    """Write a result's files into an existing folder, ``metadata.json`` last.

    Args:
        image: (H, W, 3) uint8.
        depth: (H, W) float32, NaN where missing.
        settings: what the result was made with; resolved.
        origin: what else belongs into the metadata: files, versions, notes.
    """
    height, width = depth.shape
    Image.fromarray(image).save(folder / "rgb.png")
    write_npy(folder / "depth.npy", depth)
    write_exr(folder / "depth.exr", depth)
    step = write_16_bit(folder / "depth_16.png", depth)
    for form in settings.also:
        _WRITERS[form](folder, depth, settings.fov)
    preview = depth_preview(torch.from_numpy(depth)[None])[0]
    Image.fromarray(preview).save(folder / "depth_preview.png")
    (folder / "cloud.ply").write_bytes(to_ply(cloud.centered()))
    (folder / "cloud.glb").write_bytes(to_glb(cloud.centered()))
    tiles = [("image", image), ("depth, warm is near", preview), *_views(cloud, settings.fov, (width, height))]
    contact_sheet(tiles, settings.prompt, _small_print(settings, (width, height))).save(folder / "sheet.png")

    known = depth[np.isfinite(depth)]
    metadata = {
        "format": 1,
        "settings": settings.to_dict(),
        **origin,
        "depth": {
            "width": width,
            "height": height,
            "unit": "as in the input" if settings.mode == "d2i" else "relative, larger is farther",
            "missing_pixels": int(depth.size - known.size),
            "missing_value": "NaN in depth.npy, 0 in depth.exr (whose alpha is 0 there too) and in depth_16.png",
            "min": float(known.min()),
            "max": float(known.max()),
            "depth_16.png": {"depth_per_step": step, "farthest": LEVELS * step},
        },
        "cloud": {
            "points": len(cloud),
            "axes": "glTF: x right, y up, camera looking along -z; moved so that the median is the origin",
            "normalized_intrinsics": intrinsics_from_fov(height, width, settings.fov).tolist(),
        },
        "sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())},
    }
    text = json.dumps(metadata, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / MARKER).write_text(text + "\n", encoding="utf-8")


def write_spread(folder: Path, spread: np.ndarray) -> None:
    """Write where an ensemble of depth maps (H, W) disagrees: the numbers, and a picture that is bright there."""
    write_npy(folder / "depth_spread.npy", spread)
    colors = colorize((spread / _WHITE_SPREAD).clip(0, 1), "magma")
    Image.fromarray((255 * colors).round().astype(np.uint8)).save(folder / "depth_spread.png")


def _write_npz(folder: Path, depth: np.ndarray, fov: float) -> None:
    height, width = depth.shape
    camera = intrinsics_from_fov(height, width, fov).numpy()
    np.savez_compressed(folder / "depth.npz", depth=depth, mask=np.isfinite(depth), intrinsics=camera)


def _write_16_bit_tiff(folder: Path, depth: np.ndarray) -> None:
    """The levels of ``depth_16.png``."""
    Image.fromarray(to_levels(depth)[0]).save(folder / "depth_16.tiff", compression="tiff_deflate")


_WRITERS: dict[str, Callable[[Path, np.ndarray, float], None]] = {
    "npz": _write_npz,
    "pfm": lambda folder, depth, _: write_pfm(folder / "depth.pfm", depth),
    "tiff": lambda folder, depth, _: write_float_tiff(folder / "depth.tiff", depth),
    "tiff16": lambda folder, depth, _: _write_16_bit_tiff(folder, depth),
}


def _views(cloud: PointCloud, fov: float, size: tuple[int, int]) -> list[tuple[str, np.ndarray]]:
    """The cloud from both sides, drawn at the height of the sheet's tiles in the picture's proportions."""
    large = tile_width(*size), TILE_HEIGHT
    assert cloud.colors is not None
    points, colors = cloud.points.numpy(), cloud.colors.numpy()
    return [
        (title, draw_cloud(points, colors, fov=fov, size=large, yaw=yaw, pitch=pitch)) for title, yaw, pitch in _VIEWS
    ]


def _small_print(settings: Settings, size: tuple[int, int]) -> str:
    parts = [settings.mode, f"seed {settings.seed}", f"{settings.steps} steps", f"cfg {settings.cfg:g}"]
    if settings.tilt is not None:
        parts.append(f"tilt {settings.tilt:g}")
    if settings.refine_depth:
        parts.append("refined depth")
    made, written = ("x".join(map(str, sides)) for sides in (settings.canvas, size))
    parts.append(made if made == written else f"made at {made}, written at {written}")
    return " · ".join([*parts, f"fov {settings.fov:g}", Path(settings.model).name])
