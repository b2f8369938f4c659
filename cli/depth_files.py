"""Depth maps on disk: npy, exr, and 16-bit png or tiff."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .fitting import Fit
from .images import open_image

#: Farther than this many medians, 16-bit depth is clipped, so that one far pixel cannot use up all the steps.
FAR_LIMIT = 20.0

_DEPTH_CHANNELS = ("Z", "depth", "Depth", "Y", "R")


@dataclass(frozen=True)
class DepthMap:
    """A depth map (H, W) float32, NaN where nothing was measured, and sentences on what was in the file."""

    depth: np.ndarray
    notes: tuple[str, ...]


def read_depth(path: Path, *, disparity: bool = False, mask: Path | None = None) -> DepthMap:
    """Read a depth map.

    Args:
        path: ``.npy`` (H, W), ``.exr`` (channel Z, or the only channel), 16-bit or float ``.png``/``.tif``.
        Zeros,
            negatives and non-finite values are missing pixels.
        disparity: the file holds inverse depth (larger = nearer).
        mask: image whose black pixels are missing too.

    Raises:
        ValueError: not such a file, or not one usable pixel in it.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the path of a depth map (.npy, .exr, 16-bit .png or .tif).")
    readers = {
        ".npy": _read_npy,
        ".exr": _read_exr,
        ".png": _read_image,
        ".tif": _read_image,
        ".tiff": _read_image,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} is not a depth map that mforce reads: use .npy, .exr, or a 16-bit .png or .tif.")
    values = reader(path).astype(np.float32)

    notes = []
    negative, strange = int((values < 0).sum()), int((~np.isfinite(values)).sum())
    if negative:
        notes.append(f"{path.name} has {negative} negative pixels; they count as missing.")
    if strange:
        notes.append(f"{path.name} has {strange} NaN or infinite pixels; they count as missing.")
    known = np.isfinite(values) & (values > 0)
    if mask is not None:
        known &= _read_mask(mask, values.shape)
    if not known.any():
        reason = "all are zero, negative, NaN, infinite or masked"
        hint = "Is the sign of the depth flipped?" if negative == values.size else "Is this the right file?"
        raise ValueError(f"{path} has no pixel with a depth: {reason}. {hint}")

    depth = np.full(values.shape, np.nan, dtype=np.float32)
    with np.errstate(over="ignore"):  # of a denormal disparity
        depth[known] = 1.0 / values[known] if disparity else values[known]
    depth[~np.isfinite(depth)] = np.nan
    if np.nanmin(depth) == np.nanmax(depth):
        notes.append(f"{path.name} has one depth everywhere, a flat wall; check that this is meant.")
    return DepthMap(depth, tuple(notes))


def place_depth(depth: np.ndarray, fit: Fit) -> np.ndarray:
    """The depth map (H, W) on its canvas; margins are NaN: not measured."""
    left, top, right, bottom = fit.box
    content = resample_depth(depth[top:bottom, left:right], fit.content_size)
    return np.pad(content, fit.margins, constant_values=np.nan)


def resample_depth(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A depth map (H, W) at another size (width, height) without ever mixing two measurements.

    Every output pixel takes the measured source pixel nearest to its centre among those inside it, so a
    sparse map keeps what it has; where the map grows, the source pixel it lies in. NaN is missing, before and
    after.
    """
    width, height = size
    rows, columns = depth.shape
    if (width, height) == (columns, rows):
        return depth
    if width > columns or height > rows:
        nearest_row = np.minimum(((np.arange(height) + 0.5) * rows / height).astype(int), rows - 1)
        nearest_column = np.minimum(((np.arange(width) + 0.5) * columns / width).astype(int), columns - 1)
        return depth[nearest_row[:, None], nearest_column]
    row, column = np.nonzero(np.isfinite(depth))
    y, x = (row + 0.5) * height / rows, (column + 0.5) * width / columns
    target = y.astype(int) * width + x.astype(int)
    distance = (y % 1 - 0.5) ** 2 + (x % 1 - 0.5) ** 2
    # Written from the farthest to the nearest, the last one written to a pixel stays.
    order = np.argsort(-distance, kind="stable")
    result = np.full(width * height, np.nan, dtype=depth.dtype)
    result[target[order]] = depth[row, column][order]
    return result.reshape(height, width)


def write_exr(path: Path, depth: np.ndarray) -> None:
    """Write depth (H, W) as the 32-bit float channel Z; missing pixels stay NaN."""
    openexr = _openexr()
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    openexr.File(header, {"Z": np.ascontiguousarray(depth, dtype=np.float32)}).write(str(path))


def write_16_bit(path: Path, depth: np.ndarray) -> dict[str, float]:
    """Write depth (H, W) as a 16-bit grey PNG, 0 = missing.

    Returns:
        How to read it back: depth = value * ``depth_per_step``; depth beyond ``farthest`` is written as
        farthest.
    """
    known = np.isfinite(depth)
    values = depth[known].astype(np.float64)
    farthest = min(float(values.max()), FAR_LIMIT * float(np.median(values)))
    step = farthest / 65535
    levels = np.zeros(depth.shape, dtype=np.uint16)
    levels[known] = np.clip(np.round(values / step), 1, 65535).astype(np.uint16)
    Image.fromarray(levels).save(path)
    return {"depth_per_step": step, "farthest": farthest}


def _read_npy(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a plain .npy array ({error}): save it with numpy.save.") from None
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path} holds {values.dtype} values: a depth map is an array of numbers.")
    shape = values.shape
    if values.ndim == 3 and 1 in (shape[0], shape[2]):
        values = values.squeeze(0 if shape[0] == 1 else 2)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{path} has shape {shape}: a depth map has shape (height, width).")
    return values


def _read_exr(path: Path) -> np.ndarray:
    openexr = _openexr()
    try:
        with openexr.File(str(path), separate_channels=True) as file:
            channels = {name: channel.pixels for name, channel in file.channels().items()}
    except Exception as error:  # the library raises plain RuntimeError and others for bad files
        raise ValueError(f"{path} is not a readable OpenEXR file ({error}).") from None
    name = next((name for name in _DEPTH_CHANNELS if name in channels), None)
    if name is None and len(channels) == 1:
        name = next(iter(channels))
    if name is None:
        raise ValueError(
            f"{path} has the channels {', '.join(sorted(channels))}, none is depth: store it as channel Z."
        )
    return channels[name]


def _read_image(path: Path) -> np.ndarray:
    image = open_image(path)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image)
    if image.mode in ("L", "1", "P"):
        raise ValueError(f"{path} has only 8 bits a pixel, too coarse for depth: use a 16-bit png or tiff, npy or exr.")
    raise ValueError(f"{path} is a colour picture ({image.mode}): depth needs one channel; use 16-bit png, npy or exr.")


def _read_mask(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        mask = _read_npy(path)
    else:
        mask = np.asarray(open_image(path).convert("L"))
    if mask.shape != shape:
        raise ValueError(
            f"The mask {path} is {mask.shape[1]}x{mask.shape[0]} and the depth map {shape[1]}x{shape[0]}: "
            "they must have the same size."
        )
    return mask > 0


def _openexr():
    try:
        import OpenEXR
    except ModuleNotFoundError:
        raise ModuleNotFoundError("EXR files need the OpenEXR package: pip install OpenEXR.") from None
    return OpenEXR
