"""Plain arrays on disk: ``.npy``, ``.npz`` and ``.pfm``. What a header claims is held against the file's size."""

from __future__ import annotations

import io
import math
import re
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..file_kinds import what_is
from ..pixel_limit import MAX_PIXELS, check_pixels
from ..reasons import reason_of

# Deflate, which .npz uses, cannot shrink anything more than this.
_DEFLATE_LIMIT = 1032

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # differs in the names of fields only
}


def read_npy(path: Path) -> np.ndarray:
    """The array in a ``.npy`` file, of any shape and plain dtype.

    Raises:
        ValueError: not such a file, or it is damaged or cut short.
    """
    with path.open("rb") as file:
        try:
            return _read_array(file, path.stat().st_size)
        except ValueError as error:
            kind = what_is(path)
            if kind is not None and not kind.startswith("a NumPy"):
                raise ValueError(f"{path} is not a .npy array but {kind}.") from None
            raise ValueError(f"{path} is not a plain .npy array ({error}): save it again with numpy.save.") from None


def read_npz(path: Path) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """The array of a ``.npz`` archive that is depth.

    Returns:
        The array, its name, and the names of the arrays that were passed over.

    Raises:
        ValueError: not such an archive, damaged, no array called depth among several.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            name = _depth_name(list(sizes))
            if name is None:
                raise ValueError(f"it holds {', '.join(sorted(sizes)[:8]) or 'nothing'}, and none is called depth")
            entry = sizes[name]
            claimed = entry.file_size
            if claimed > 16 * MAX_PIXELS or claimed > _DEFLATE_LIMIT * (path.stat().st_size + 1024):
                raise ValueError(f"its array {name} claims {claimed:,} bytes, which such a file cannot hold")
            content = archive.read(entry)
        array = _read_array(io.BytesIO(content), len(content))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as a .npz archive ({error}).") from None
    except Exception as error:  # zipfile raises BadZipFile, zlib.error, NotImplementedError, RuntimeError and others
        kind = what_is(path)
        if kind is not None and not kind.startswith("a ZIP"):
            raise ValueError(f"{path} is not a .npz archive but {kind}.") from None
        raise ValueError(f"{path} is not a whole .npz archive ({_reason(error)}): save it with numpy.savez.") from None
    return array, name, tuple(sorted(sizes.keys() - {name}))


def read_pfm(path: Path) -> np.ndarray:
    """The gray map (H, W) float32 of a portable float map; its rows are stored from the bottom up.

    Raises:
        ValueError: not such a file, a color map, cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        found = re.match(rb"(P[Ff])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]{1,32})(?:\r\n|\s)", file.read(128))
        if found is None:
            kind = what_is(path)
            raise ValueError(f"{path} is not a portable float map{f' but {kind}' if kind else ''}.")
        if found[1] == b"PF":
            raise ValueError(f"{path} is a color picture (PF): a depth map is a gray .pfm (Pf).")
        width, height = int(found[2]), int(found[3])
        try:
            scale = float(found[4])
        except ValueError:
            scale = math.nan
        if not width or not height or not math.isfinite(scale) or scale == 0:
            raise ValueError(f"{path} has a header without a size and a scale.")
        if width * height * 4 > size - found.end():
            raise ValueError(f"{path} is cut short: {width}x{height} values need {width * height * 4:,} bytes.")
        check_pixels(path, width, height)
        file.seek(found.end())
        values = np.fromfile(file, dtype="<f4" if scale < 0 else ">f4", count=width * height)
    return values.reshape(height, width)[::-1].astype(np.float32)


def write_pfm(path: Path, values: np.ndarray) -> None:
    """Write values (H, W) as a gray portable float map; missing pixels (NaN) are infinite, as stereo sets have them."""
    rows = np.where(np.isfinite(values), values, np.inf)[::-1].astype("<f4")
    path.write_bytes(b"Pf\n%d %d\n-1.0\n" % (values.shape[1], values.shape[0]) + rows.tobytes())


def as_map(path: Path, array: np.ndarray, *, kinds: str = "fiu") -> np.ndarray:
    """``array`` as (H, W): dimensions of size 1 beside two others are dropped.

    Args:
        kinds: of NumPy dtypes that are allowed: float, signed, unsigned.

    Raises:
        ValueError: other values, another shape, no or too many pixels.
    """
    if array.dtype.kind not in kinds:
        raise ValueError(f"{path} holds {array.dtype} values: a depth map is an array of numbers.")
    shape = array.shape
    # Batch and channel first, channel last: (1, 1, H, W), (1, H, W), (H, W, 1), (1, H, W, 1).
    while array.ndim > 2 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{path} has shape {shape}: a depth map has shape (height, width).")
    check_pixels(path, array.shape[1], array.shape[0])
    return array


def _read_array(file: BinaryIO, size: int) -> np.ndarray:
    """The array of an open ``.npy`` stream of ``size`` bytes; raises ValueError."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the format is unknown")
        shape, fortran, dtype = _HEADERS[version](file)
    except ValueError as error:
        raise ValueError(_reason(error)) from None
    except Exception:  # NumPy's header parser passes on what Python's tokenizer and compiler raise
        raise ValueError("its header is damaged") from None
    if dtype.hasobject or dtype.names:
        raise ValueError("it holds Python objects or records, not numbers")
    count = math.prod(shape)
    if min(shape, default=1) < 0 or count * dtype.itemsize > size - file.tell():
        raise ValueError(f"its header claims shape {shape}, more than the file holds")
    values = np.frombuffer(file.read(count * dtype.itemsize), dtype=dtype, count=count)
    return values.reshape(shape, order="F" if fortran else "C")


def _depth_name(names: list[str]) -> str | None:
    if len(names) == 1:
        return names[0]
    for wanted in ("depth", "disparity", "disp", "arr_0"):
        if wanted in names:
            return wanted
    likely = [name for name in names if "depth" in name.lower() and "mask" not in name.lower()]
    return likely[0] if len(likely) == 1 else None


def _reason(error: Exception) -> str:
    return reason_of(error).rstrip(".:")[:160]
