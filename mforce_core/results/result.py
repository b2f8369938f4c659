"""What one run gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..depth.edges import depth_edges
from ..scene3d.point_cloud import PointCloud, intrinsics_from_fov, unproject
from ..settings import Settings
from .folder import output_folder
from .writing import check_writers, write_files, write_spread

#: With fewer than this share of the measured pixels away from edges, a map is sparse: nearly every pixel has
#: a missing one beside it, which is then no reason to leave it out of the cloud.
_SPARSE = 0.1


@dataclass(frozen=True)
class Result:
    """An image and its depth, pixel by pixel.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) float32 z-depth, larger is farther, NaN where there is none. Relative, that is up to a factor,
            except in mode d2i, where it is the given depth.
        settings: everything that decided it.
        spread: (H, W) float32, of an ensemble: the share of the depth by which its maps differ, 1 where there is none.
        origin: which files, versions and kernels it came from, and notes on its input; JSON-able.
    """

    image: np.ndarray
    depth: np.ndarray
    settings: Settings
    origin: Mapping[str, Any] = field(default_factory=dict, repr=False)
    spread: np.ndarray | None = None

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool: the pixels that have a depth."""
        return np.isfinite(self.depth)

    @property
    def camera(self) -> np.ndarray:
        """(3, 3) pinhole intrinsics normalized by the picture's size, from the settings' horizontal field of view."""
        height, width = self.depth.shape
        return intrinsics_from_fov(height, width, self.settings.fov).numpy()

    def point_cloud(self) -> PointCloud:
        """Colored points of the pixels that are no depth edges, in glTF axes, the camera at the origin.

        Raises:
            ValueError: no pixel is left.
        """
        threshold = self.settings.edge_threshold
        assert threshold is not None  # filled in with the size
        depth = torch.from_numpy(self.depth)
        known = torch.isfinite(depth)
        inner = known & ~depth_edges(depth, threshold)
        sparse = bool(inner.sum() < _SPARSE * known.sum())
        return unproject(
            depth,
            fov_degrees=self.settings.fov,
            rgb=torch.from_numpy(self.image),
            edge_threshold=None if sparse else threshold,
            remove_outliers=self.settings.remove_outliers and not sparse,
        )

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the result's files into a folder, which appears when all of them are complete.

        ``rgb.png``, ``depth.npy``, ``depth.exr``, ``depth_16.png``, ``depth_preview.png``, ``cloud.ply``,
        ``cloud.glb``, ``sheet.png`` and ``metadata.json``, from which ``mforce rerun`` makes the result again.

        Args:
            folder: where to; must not hold files.
            overwrite: replace it where an earlier result is in it.

        Returns:
            The folder.

        Raises:
            ValueError: the folder may not be replaced, or cannot be written.
            ModuleNotFoundError: OpenEXR or scipy is not installed.
        """
        check_writers()
        with output_folder(Path(folder), overwrite=overwrite) as work:
            self.write(work)
        return Path(folder)

    def write(self, folder: Path) -> None:
        """Write the same files into a folder that exists, as they become ready."""
        if self.spread is not None:
            write_spread(folder, self.spread)
        write_files(folder, self.image, self.depth, self.point_cloud(), self.settings, self.origin)
