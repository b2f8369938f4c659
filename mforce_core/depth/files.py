"""Depth maps on disk: npy, exr, and 16-bit png or tiff.

What the numbers in a file mean is written into it where the format has a place for that (the text of a PNG, an
attribute of an EXR file), under the name ``mforce_depth``: see :class:`Encoding`. Missing pixels are NaN in npy and 0
in the others. EXR files also have an alpha channel, 1 where there is depth: compositors blur and resample, and one NaN
or infinity spoils everything that a filter touches.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..picture.files import open_image

#: Endings of the files that are read.
SUFFIXES = (".exr", ".npy", ".png", ".tif", ".tiff")

#: Larger than this many medians, 16-bit values are clipped, so that one far pixel cannot use up all the steps.
FAR_LIMIT = 20.0

#: Depth from here on is how renderers say that there is no surface (Blender writes exactly this).
_BACKGROUND = 1e10

#: The last level of a 16-bit file.
LEVELS = 65535

_KEY = "mforce_depth"


@dataclass(frozen=True)
class Encoding:
    """What a file's numbers mean: number * ``scale`` + ``offset`` is depth or, if ``disparity``, 1 / depth."""

    disparity: bool = False
    scale: float = 1.0
    offset: float = 0.0

    def depth(self, numbers: np.ndarray) -> np.ndarray:
        """Depth (H, W) float32 of a file's numbers; NaN stays NaN."""
        if self.scale == 1.0 and self.offset == 0.0:
            values = numbers
        else:
            values = numbers.astype(np.float64) * self.scale + self.offset
        if self.disparity:
            with np.errstate(over="ignore", divide="ignore"):
                values = 1.0 / values
        return values.astype(np.float32)

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str, path: Path) -> Encoding:
        try:
            found = json.loads(text)
            return cls(bool(found["disparity"]), float(found["scale"]), float(found["offset"]))
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} has a damaged {_KEY} entry ({text[:80]!r}): remove it or save again.") from None


@dataclass(frozen=True)
class DepthMap:
    """A depth map (H, W) float32, NaN where nothing was measured, and sentences on what was in the file."""

    depth: np.ndarray
    notes: tuple[str, ...]


def read_depth(
    path: Path, *, disparity: bool | None = None, mask: Path | None = None, channel: str | None = None
) -> DepthMap:
    """Read a depth map.

    Args:
        path: ``.npy`` (H, W), ``.exr``, 16-bit or float ``.png``/``.tif``. Zeros, negatives, non-finite values and
            depth from 1e10 on, the background of renderers, are missing pixels.
        disparity: whether the file holds inverse depth (larger = nearer); None: what it says itself, else depth.
        mask: image whose black pixels are missing too.
        channel: of an EXR file, "Z" or "layer.Z"; None looks for one named like depth.

    Raises:
        ValueError: not such a file, or not one usable pixel in it.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the path of a depth map (.npy, .exr, 16-bit .png or .tif).")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path} is not a depth map that is read here: use .npy, .exr, or a 16-bit .png or .tif.")
    if suffix == ".npy":
        numbers, encoding = _read_npy(path), Encoding()
    elif suffix == ".exr":
        numbers, encoding = _read_exr(path, channel)
    else:
        numbers, encoding = _read_image(path)
    if disparity is not None:
        encoding = replace(encoding, disparity=disparity)

    notes = []
    negative, strange = int((numbers < 0).sum()), int((~np.isfinite(numbers)).sum())
    if negative:
        notes.append(f"{path.name} has {negative} negative pixels; they count as missing.")
    if strange:
        notes.append(f"{path.name} has {strange} NaN or infinite pixels; they count as missing.")
    known = np.isfinite(numbers) & (numbers > 0)
    if not encoding.disparity:
        background = known & (numbers >= _BACKGROUND)
        if background.any():
            notes.append(f"{path.name} has {int(background.sum())} pixels of background; they count as missing.")
        known &= ~background
    if mask is not None:
        known &= _read_mask(mask, numbers.shape)
    if not known.any():
        reason = "all are zero, negative, NaN, infinite or masked"
        hint = "Is the sign of the depth flipped?" if negative == numbers.size else "Is this the right file?"
        raise ValueError(f"{path} has no pixel with a depth: {reason}. {hint}")

    depth = encoding.depth(np.where(known, numbers, np.nan))
    depth[~np.isfinite(depth)] = np.nan  # of a denormal disparity
    if np.nanmin(depth) == np.nanmax(depth):
        notes.append(f"{path.name} has one depth everywhere, a flat wall; check that this is meant.")
    return DepthMap(depth, tuple(notes))


def write_npy(path: Path, values: np.ndarray) -> None:
    """Write values (H, W) as a float32 array; missing pixels stay NaN."""
    np.save(path, values.astype(np.float32))


def write_exr(
    path: Path,
    values: np.ndarray,
    encoding: Encoding = Encoding(),
    *,
    channel: str = "Z",
    attributes: Mapping[str, str] | None = None,
) -> None:
    """Write values (H, W), NaN = missing, in 32-bit float beside the alpha channel of known pixels.

    Args:
        encoding: what the values mean.
        channel: "Z" is what compositors take for depth; "R" or "RGB" is for programs that look at colors only.
        attributes: more strings for the header.
    """
    openexr = _openexr()
    known = np.isfinite(values)
    finite = np.where(known, values, 0).astype(np.float32)
    channels = dict.fromkeys(channel, finite) | {"A": known.astype(np.float32)}
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage, _KEY: encoding.to_text()}
    openexr.File({**header, **(attributes or {})}, channels).write(str(path))


def write_16_bit(
    path: Path,
    values: np.ndarray,
    encoding: Encoding = Encoding(),
    *,
    step: float | None = None,
    text: Mapping[str, str] | None = None,
) -> float:
    """Write positive values (H, W), NaN = missing, as a 16-bit gray PNG, 0 = missing.

    Args:
        encoding: what the values mean; the file's own entry speaks of its levels.
        step: value of one level; None: so that the largest value, or FAR_LIMIT medians, is the last level.
        text: more texts for the file.

    Returns:
        The step: value = level * step, and no value is larger than 65535 steps.
    """
    known = np.isfinite(values)
    numbers = values[known].astype(np.float64)
    if step is None:
        step = min(float(numbers.max()), FAR_LIMIT * float(np.median(numbers))) / LEVELS if numbers.size else 1.0
    levels = np.zeros(values.shape, dtype=np.uint16)
    levels[known] = np.clip(np.round(numbers / step), 1, LEVELS).astype(np.uint16)
    info = PngInfo()
    info.add_text(_KEY, replace(encoding, scale=encoding.scale * step).to_text())
    for key, value in (text or {}).items():
        info.add_text(key, value)
    Image.fromarray(levels).save(path, pnginfo=info)
    return step


def _read_npy(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a plain .npy array ({error}): save it with numpy.save.") from None
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{path} is an archive of arrays: save the one depth map with numpy.save.")
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{path} holds {values.dtype} values: a depth map is an array of numbers.")
    shape = values.shape
    if values.ndim == 3 and 1 in (shape[0], shape[2]):
        values = values.squeeze(0 if shape[0] == 1 else 2)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{path} has shape {shape}: a depth map has shape (height, width).")
    return values


def _read_exr(path: Path, wanted: str | None) -> tuple[np.ndarray, Encoding]:
    openexr = _openexr()
    try:
        with openexr.File(str(path), separate_channels=True) as file:
            pixels, headers = {}, {}
            for part in file.parts:
                for name, channel in part.channels.items():
                    layer = f"{part.name()}.{name}" if len(file.parts) > 1 and part.name() else name
                    pixels[layer], headers[layer] = channel.pixels, dict(part.header)
    except Exception as error:  # the library raises plain RuntimeError and others for bad files
        raise ValueError(f"{path} is not a readable OpenEXR file ({error}).") from None
    name = _depth_channel(list(pixels), wanted)
    if name is None:
        which = "none is depth: store it as channel Z" if wanted is None else f"none is {wanted}"
        raise ValueError(f"{path} has the channels {', '.join(sorted(pixels))}, {which}.")
    header = headers[name]
    values = pixels[name]
    if values.ndim != 2 or values.dtype == object:
        raise ValueError(f"{path} holds deep data: flatten it to one depth a pixel.")
    values = _in_display_window(values.astype(np.float32), header["dataWindow"], header["displayWindow"])
    text = header.get(_KEY)
    return values, Encoding() if text is None else Encoding.from_text(text, path)


def _depth_channel(names: list[str], wanted: str | None) -> str | None:
    """The channel ``wanted``, of whatever layer, or else the one that is most likely depth."""

    def ends(name: str, ending: str) -> bool:
        return name == ending or name.endswith(f".{ending}")

    names = sorted(names, key=lambda name: (name.count("."), name))
    if wanted is not None:
        return next((name for name in names if ends(name, wanted)), None)
    tests = (
        lambda name: ends(name, "Z"),
        lambda name: "depth" in name.lower(),
        lambda name: name in ("Y", "R"),
        lambda name: len(names) == 1,
    )
    return next((name for test in tests for name in names if test(name)), None)


def _in_display_window(values: np.ndarray, data: tuple, display: tuple) -> np.ndarray:
    """The whole picture of a file that holds the pixels of a part of it, or of more; NaN where there is none."""
    (left, top), (right, bottom) = (np.asarray(corner).tolist() for corner in display)
    x, y = np.asarray(data[0]).tolist()
    whole = np.full((bottom - top + 1, right - left + 1), np.nan, dtype=values.dtype)
    inner = values[max(0, top - y) : max(0, bottom + 1 - y), max(0, left - x) : max(0, right + 1 - x)]
    at_y, at_x = max(0, y - top), max(0, x - left)
    whole[at_y : at_y + inner.shape[0], at_x : at_x + inner.shape[1]] = inner
    return whole


def _read_image(path: Path) -> tuple[np.ndarray, Encoding]:
    image = open_image(path)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        text = getattr(image, "text", {}).get(_KEY)
        return np.asarray(image), Encoding() if text is None else Encoding.from_text(text, path)
    if image.mode in ("L", "1", "P"):
        raise ValueError(f"{path} has only 8 bits a pixel, too coarse for depth: use a 16-bit png or tiff, npy or exr.")
    raise ValueError(f"{path} is a color picture ({image.mode}): depth needs one channel; use 16-bit png, npy or exr.")


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


def _openexr() -> ModuleType:
    try:
        import OpenEXR
    except ModuleNotFoundError:
        raise ModuleNotFoundError("EXR files need the OpenEXR package: pip install OpenEXR.") from None
    return OpenEXR
