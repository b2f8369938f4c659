"""Small data sets in Marigold's layouts, from integers alone, so that every machine writes the same numbers."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

#: Height and width of the maps of each set; ETH3D's original size is patched to this where it is read.
SIZES = {"nyuv2": (480, 640), "kitti": (375, 1242), "eth3d": (96, 144), "scannet": (60, 80), "diode": (48, 64)}


def steps(shape: tuple[int, int]) -> np.ndarray:
    """A map of whole numbers from 0 to 1999 with jumps, (H, W)."""
    rows, columns = np.indices(shape)
    return (rows * 7 + columns * 3 + (rows // 16 + columns // 24) * 131) % 2000


def depth_file(key: str) -> dict[str, bytes]:
    """Ending of a depth file -> its content."""
    numbers = steps(SIZES[key])
    if key in ("nyuv2", "scannet"):
        return {"_depth.png": _png((numbers * 6).astype(np.uint16))}  # millimeters, some 0, some above 10 m
    if key == "kitti":
        sparse = np.where(numbers % 17 == 0, numbers * 12, 0)  # up to 93 m
        return {"_depth.png": _png(sparse.astype(np.uint16))}
    if key == "eth3d":
        depth = np.where(numbers % 11 == 0, np.float32(np.inf), numbers.astype(np.float32) / 64)
        return {"_depth.JPG": depth.astype("<f4").tobytes()}
    depth = (numbers[..., None] / 8).astype(np.float32)
    return {"_depth.npy": _npy(depth), "_depth_mask.npy": _npy((numbers % 5 > 0).astype(np.float32))}


def files(key: str, count: int = 2) -> tuple[dict[str, bytes], list[str]]:
    """Files of a data set by relative path, and the lines of its list."""
    found: dict[str, bytes] = {}
    lines = []
    for number in range(count):
        stem = f"scene/{key}_{number}"
        rows, columns = np.indices(SIZES[key])
        found[f"{stem}.png"] = _png(np.stack([rows % 256, columns % 256, (rows + columns) % 256], -1).astype(np.uint8))
        depths = {f"{stem}{ending}": content for ending, content in depth_file(key).items()}
        found |= depths
        filled = [next(iter(depths))] if key == "nyuv2" else []
        lines.append(" ".join([f"{stem}.png", *depths, *filled]))
    return found, lines


def write(folder: Path, key: str, count: int = 2) -> list[str]:
    """Write a data set into a folder; returns the lines of its list."""
    found, lines = files(key, count)
    for relative, content in found.items():
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        (folder / relative).write_bytes(content)
    return lines


def _png(values: np.ndarray) -> bytes:
    content = BytesIO()
    Image.fromarray(values).save(content, format="PNG")
    return content.getvalue()


def _npy(values: np.ndarray) -> bytes:
    content = BytesIO()
    np.save(content, values)
    return content.getvalue()
