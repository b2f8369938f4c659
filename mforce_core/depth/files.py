"""Depth maps on disk: npy, npz, exr, pfm, and png or tiff.

What the numbers in a file mean is written into it where the format has a place for that (the text of a PNG, an
attribute of an EXR file), under the name ``mforce_depth``: see :class:`Encoding`. Missing pixels are NaN in npy and 0
in the others. EXR files also have an alpha channel, 1 where there is depth: compositors blur and resample, and one NaN
or infinity spoils everything that a filter touches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np

from .arrays import MAX_PIXELS, as_map, read_npy, read_npz, read_pfm, write_pfm
from .encoding import Encoding
from .exr import read_exr, write_exr
from .exr_channels import is_inverse
from .images import FAR_LIMIT, LEVELS, ImageDepth, png_bits, read_image, write_16_bit, write_float_tiff
from .masks import read_mask

__all__ = [
    "FAR_LIMIT",
    "LEVELS",
    "MAX_PIXELS",
    "SUFFIXES",
    "DepthMap",
    "Encoding",
    "png_bits",
    "read_depth",
    "write_16_bit",
    "write_exr",
    "write_float_tiff",
    "write_npy",
    "write_pfm",
]

#: Endings of pictures whose compression changes them.
_LOSSY = (".jpg", ".jpeg", ".webp", ".avif", ".heic")
#: Endings of the files that are read.
_ARRAYS = (".exr", ".npy", ".npz", ".pfm")
SUFFIXES = (*_ARRAYS, ".png", ".tif", ".tiff")

#: How many times farther black is than white in a map that was stretched, where nobody says it: Encode Depth's default.
FAR_TO_NEAR = 10.0

#: Depth from here on is how renderers say that there is no surface (Blender writes exactly this).
_BACKGROUND = 1e10
#: The largest half-precision float: what 1e10 becomes in a half-float EXR, also after a conversion to 32 bits.
_HALF_BACKGROUND = 65504.0

#: How many times farther than all others the last level is where it stands for no depth.
_GAP = 2

# A disparity map with a larger ratio of its levels than this, up to the last one, was stretched (floats: from 0 to 1).
_STRETCHED = 100


@dataclass(frozen=True)
class DepthMap:
    """A depth map (H, W) float32, NaN where nothing was measured, and sentences on what was in the file.

    ``assumed``: the file holds 8 bits per pixel and does not say what they mean; disparity was assumed.
    """

    depth: np.ndarray
    notes: tuple[str, ...]
    assumed: bool = False


def read_depth(
    path: Path,
    *,
    disparity: bool | None = None,
    mask: Path | None = None,
    channel: str | None = None,
    far_to_near: float | None = None,
) -> DepthMap:
    """Read a depth map.

    Args:
        path: ``.npy`` or ``.npz`` (H, W), ``.exr``, ``.pfm``, 16-bit or float ``.png``/``.tif``, or 8-bit disparity.
            Zeros, negatives, non-finite values and depth from 1e10 on (or 65504 in half floats), the background of
            renderers, are missing pixels, and so are those with an alpha of 0, of GDAL's value for no data, and of the
            last level (65535) where all others are nearer than half of it.
        disparity: whether the file holds inverse depth (larger = nearer); None: what it says itself, else depth.
        mask: image or array; pixels that are not brighter than half are missing too.
        channel: of an EXR file, "Z", "layer.Z" or "layer"; None looks for one named like depth.
        far_to_near: of a disparity map that was stretched to all levels: how many times farther its darkest pixel is
            than its brightest. None: 10 where a map is recognized as stretched, with a note.

    Raises:
        ValueError: not such a file, or not one usable pixel in it.
        ModuleNotFoundError: an EXR file without the OpenEXR package.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the path of one depth map.")
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the path of a depth map (.npy, .exr, 16-bit .png or .tif).")
    suffix = path.suffix.lower()
    if suffix in _LOSSY:
        raise ValueError(
            f"{path} is not a depth map that is read here, since its compression changes depth: save the map as a "
            "16-bit .png or .tif, .npy or .exr. If this file is all there is, convert it to .png: 8 bits are read as "
            "disparity."
        )
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path} is not a depth map that is read here: use .npy, .npz, .exr, .pfm, or a 16-bit .png or .tif."
        )
    numbers, encoding, levels, present, notes = _read(path, suffix, channel)
    assumed = levels == 255 and encoding is None and disparity is None
    if levels == 255 and disparity is False:
        raise ValueError(
            f"{path} has only 8 bits per pixel, too coarse for depth: use a 16-bit png or tiff, npy or exr."
        )
    if assumed:
        notes.append(f"{path.name} has 8 bits per pixel; it was read as disparity, in which near is bright.")
        disparity = True
    own = encoding is not None
    encoding = encoding or Encoding()
    if disparity is not None:
        encoding = replace(encoding, disparity=disparity)

    known = present & _known(path, numbers, encoding.disparity, notes)
    if not own and not encoding.disparity:
        known = _not_endless(path, numbers, known, notes)
    if encoding.disparity and not own:
        numbers, known = _unstretch(path, numbers, known, levels, far_to_near, notes)
        known &= present
    if mask is not None:
        known &= read_mask(mask, numbers.shape)
    if not known.any():
        reason = "all are zero, negative, NaN, infinite, background or masked"
        hint = "Is the sign of the depth flipped?" if (numbers < 0).all() else "Is this the right file?"
        raise ValueError(f"{path} has no pixel with a depth: {reason}. {hint}")

    if numbers.dtype.kind != "f" or numbers.dtype.itemsize < 4:
        numbers = numbers.astype(np.float32 if numbers.dtype.itemsize < 4 else np.float64)
    depth = encoding.depth(np.where(known, numbers, np.nan))
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan  # of a denormal disparity, of an offset
    if not np.isfinite(depth).any():
        raise ValueError(f"{path} has no pixel with a depth: its numbers are out of the range of 32-bit floats.")
    if np.nanmin(depth) == np.nanmax(depth):
        notes.append(f"{path.name} has one depth everywhere, a flat wall; check that this is meant.")
    return DepthMap(depth, tuple(notes), assumed)


def write_npy(path: Path, values: np.ndarray) -> None:
    """Write values (H, W) as a float32 array; missing pixels stay NaN."""
    content = BytesIO()
    np.save(content, values.astype(np.float32))
    path.write_bytes(content.getvalue())  # np.save into a file does not say why it failed


def _read(path: Path, suffix: str, channel: str | None) -> ImageDepth:
    """What the file holds, as of a picture."""
    if suffix not in _ARRAYS:
        return read_image(path)
    encoding: Encoding | None = None
    notes: list[str] = []
    if suffix == ".npy":
        numbers = as_map(path, read_npy(path))
    elif suffix == ".npz":
        array, name, others = read_npz(path)
        passed = f", not from {', '.join(others)}" if others else ""
        notes.append(f"{path.name}: depth was taken from its array {name}{passed}.")
        numbers, encoding = as_map(path, array), Encoding(disparity=True) if is_inverse(name) else None
    elif suffix == ".pfm":
        numbers = read_pfm(path)
    else:
        exr = read_exr(path, channel)
        numbers, encoding, notes = exr.numbers, exr.encoding, [*exr.notes]
        if encoding is None and exr.inverse:
            encoding = Encoding(disparity=True)
            notes.append(f"{path.name}: its channel is called disparity or inverse, and so it was read as disparity.")
    return ImageDepth(numbers, encoding, None, np.ones(numbers.shape, dtype=bool), notes)


def _known(path: Path, numbers: np.ndarray, disparity: bool, notes: list[str]) -> np.ndarray:
    """The pixels (H, W) bool that hold a usable number; says what the others are."""
    finite = np.isfinite(numbers)
    negative, strange = int((numbers < 0).sum()), int((~finite).sum())
    if negative:
        notes.append(f"{path.name} has {negative} negative pixels; they count as missing.")
    if strange:
        notes.append(f"{path.name} has {strange} NaN or infinite pixels; they count as missing.")
    known = finite & (numbers > 0)
    if disparity or numbers.dtype.kind != "f":
        return known
    if numbers.dtype == np.float16:
        background = known & (numbers >= np.float16(_HALF_BACKGROUND))
    else:
        background = known & (numbers >= _BACKGROUND)
        rest = known & ~background
        # Nothing measures exactly the largest half as its farthest point.
        if rest.any() and numbers[rest].max() == _HALF_BACKGROUND:
            background |= known & (numbers == _HALF_BACKGROUND)
    if background.any():
        notes.append(f"{path.name} has {int(background.sum())} pixels of background; they count as missing.")
    return known & ~background


def _not_endless(path: Path, numbers: np.ndarray, known: np.ndarray, notes: list[str]) -> np.ndarray:
    """The known pixels of depth but for those of the last level, where all the others are nearer than half of it.

    Sensors and programs write the largest number that there is, 65535 in most files, where nothing was measured or
    nothing is; also into files that hold floats by now.
    """
    kind, size = numbers.dtype.kind, numbers.dtype.itemsize
    if size < (4 if kind == "f" else 2):
        return known
    last = float(LEVELS)
    if kind != "f" and (numbers == np.iinfo(numbers.dtype).max).any():  # wider integers may hold 16 bits, too
        last = float(np.iinfo(numbers.dtype).max)
    endless = known & (numbers == last)
    rest = known & ~endless
    if not endless.any() or not rest.any() or float(numbers[rest].max()) * _GAP > last:
        return known
    notes.append(f"{path.name} has {int(endless.sum())} pixels of {last:.0f}, the last level; they count as missing.")
    return rest


def _unstretch(
    path: Path,
    numbers: np.ndarray,
    known: np.ndarray,
    levels: int | None,
    far_to_near: float | None,
    notes: list[str],
) -> tuple[np.ndarray, np.ndarray]:
    """Disparity whose darkest level is far instead of endless, where a map was stretched to all levels.

    Returns:
        Disparity up to a factor (H, W), brightest 1, and its known pixels: black is far, not missing.
    """
    if not known.any():
        return numbers, known
    top, low = float(numbers[known].max()), float(numbers[known].min())
    last = levels or (1.0 if float(numbers[np.isfinite(numbers)].min()) == 0.0 else None)
    stretched = levels == 255 or (top == last and top > _STRETCHED * low)
    if far_to_near is None and not stretched:
        return numbers, known
    if far_to_near is None:
        far_to_near = FAR_TO_NEAR
        notes.append(
            f"{path.name} looks stretched to all its levels, which do not say how far is far; its darkest pixel was "
            f"taken as {FAR_TO_NEAR:g} times as far as its brightest. Give the ratio with "
            "`far_to_near` if you know it."
        )
    if not 1 < far_to_near < 1e6:
        raise ValueError(f"The ratio of far to near must be above 1, got {far_to_near:g}.")
    known = np.isfinite(numbers) & (numbers >= 0)
    floor = 1.0 / far_to_near
    near = np.where(known, numbers, 0).astype(np.float64) / top
    return near * (1.0 - floor) + floor, known
