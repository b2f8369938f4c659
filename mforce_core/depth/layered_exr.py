"""Picture, depth and passes in the layers of one OpenEXR file, by the names that compositors read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..picture.color import to_linear
from .encoding import PLAIN
from .exr import write_channels


@dataclass(frozen=True)
class Layers:
    """What goes into a file; passes that are None are left out.

    Attributes:
        picture: (H, W, 3) sRGB in [0, 1].
        depth: (H, W), NaN where there is none.
        normals: (H, W, 3), x right, y up, z toward the camera.
        position: (H, W, 3) in the world, y up.
        occlusion: (H, W), 1 in the open.
    """

    picture: np.ndarray
    depth: np.ndarray
    normals: np.ndarray | None = None
    position: np.ndarray | None = None
    occlusion: np.ndarray | None = None

    def channels(self) -> dict[str, np.ndarray]:
        """R, G, B in linear light and A, which is 1; Z, 0 where there is no depth; mask.A, 1 where there is; N.X, N.Y,
        N.Z; P.X, P.Y, P.Z; AO.R. Measures are 32-bit floats, the rest 16-bit."""
        known = np.isfinite(self.depth)
        half = np.float16
        found = {
            **_components("RGB", to_linear(torch.from_numpy(self.picture)).numpy().astype(half)),
            "A": np.ones(self.depth.shape, half),
            "Z": np.where(known, self.depth, 0).astype(np.float32),
            "mask.A": known.astype(half),
        }
        if self.normals is not None:
            found |= _components(("N.X", "N.Y", "N.Z"), self.normals.astype(half))
        if self.position is not None:
            found |= _components(("P.X", "P.Y", "P.Z"), self.position.astype(np.float32))
        if self.occlusion is not None:
            found["AO.R"] = self.occlusion.astype(half)
        return found


def write_layers(path: Path, layers: Layers, attributes: Mapping[str, str] | None = None) -> None:
    """Write the file.

    Args:
        attributes: more strings for the header.

    Raises:
        ModuleNotFoundError: OpenEXR is not installed.
        OSError: the file cannot be written.
    """
    write_channels(path, layers.channels(), PLAIN, attributes)


def _components(names: str | tuple[str, ...], values: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(values[..., index]) for index, name in enumerate(names)}
