"""A depth map as Gaussian splats, one for each pixel: a disc on the surface that the pixel sees, of the pixel's size.

Splats are in camera axes (x right, y down, z forward), as 3D Gaussian Splatting has them. The file is the ``.ply`` of
its authors (Kerbl et al. 2023, https://repo-sam.inria.fr/fungraph/3d-gaussian-splatting/): logarithms of scales, the
inverse sigmoid of opacity, colors as the constant term of spherical harmonics, quaternions (w, x, y, z).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..depth.disparity import disparity_of
from ..depth.edges import depth_edges
from .point_cloud import camera_points
from .surface import links, slopes

#: Standard deviation of a splat in pixels. A grid of Gaussians of this width is even to 3%.
_WIDTH = 0.5
#: A splat is at most this many times longer than its pixel is wide; on surfaces seen from the side it were a needle.
_LONGEST = 8.0
#: Thickness of a splat as a fraction of its pixel's width.
_THICKNESS = 0.05
_OPACITY = 0.99
# Constant term of the real spherical harmonics: 1 / (2 sqrt(pi)).
_HARMONIC = 0.28209479177387814


@dataclass(frozen=True)
class Splats:
    """N splats.

    positions: (N, 3), in the depth's unit. scales: (N, 3), standard deviations along the splat's own axes, which are
    the columns of its rotation: (N, 4) unit quaternions w, x, y, z. colors: (N, 3) in [0, 1]. opacities: (N,).
    """

    positions: Tensor
    scales: Tensor
    rotations: Tensor
    colors: Tensor
    opacities: Tensor

    def __len__(self) -> int:
        return len(self.positions)

    def harmonics(self) -> Tensor:
        """(N, 1, 3) coefficients of spherical harmonics that have the colors from every side."""
        return ((self.colors - 0.5) / _HARMONIC)[:, None]


def splats_of(
    depth: Tensor,
    valid: Tensor,
    intrinsics: Tensor,
    rgb: Tensor,
    *,
    edge_threshold: float,
    size: float = 1.0,
) -> Splats:
    """The splats of a depth map, in row-major order of the pixels that have one.

    A pixel's footprint is the parallelogram of the steps to its neighbors along its surface, whose slope comes from
    1 / depth as in `surface_normals`; the splat is the Gaussian with the parallelogram's axes.

    Args:
        depth: (H, W), with valid (H, W) bool.
        intrinsics: (3, 3), normalized by the picture's size.
        rgb: (H, W, 3) in [0, 1].
        edge_threshold: pixels where depth jumps by more than this fraction have no splat.
        size: of splats, as a factor.

    Raises:
        ValueError: no pixel is left.
    """
    keep = valid & ~depth_edges(torch.where(valid, depth, torch.zeros_like(depth)), edge_threshold)
    if not keep.any():
        raise ValueError("the depth map has no pixel to make a splat of: all are invalid or depth edges.")
    height, width = depth.shape
    points = camera_points(torch.where(keep, depth, torch.ones_like(depth)), intrinsics)[keep].double()
    disparity = disparity_of(depth, valid)
    right = slopes(disparity, links(disparity, valid, edge_threshold))[keep].double()
    down = slopes(disparity.T, links(disparity.T, valid.T, edge_threshold)).T[keep].double()
    z = points[:, 2]
    # dP / du = z dray / du - P z d(1 / z) / du, and likewise down the picture.
    step_right, step_down = -points * (z * right)[:, None], -points * (z * down)[:, None]
    pixel = z / (float(intrinsics[0, 0]) * width)
    step_right[:, 0] += pixel
    step_down[:, 1] += z / (float(intrinsics[1, 1]) * height)

    axes, lengths = _axes(step_right, step_down)
    limits = torch.stack([pixel * _THICKNESS, pixel * _LONGEST])
    lengths = torch.minimum(torch.maximum(lengths, limits[0][:, None]), limits[1][:, None])
    scales = torch.cat([_WIDTH * lengths, (_WIDTH * limits[0])[:, None]], dim=1) * size
    count = len(points)
    return Splats(
        points.float(),
        scales.float(),
        _quaternions(axes),
        rgb[keep].float().clamp(0, 1),
        torch.full((count,), _OPACITY),
    )


def to_ply(splats: Splats) -> bytes:
    """The file of 3D Gaussian Splatting, without view-dependent colors."""
    logit = torch.logit(splats.opacities.double().clamp(1e-6, 1 - 1e-6))[:, None]
    columns = {
        **dict.fromkeys(("x", "y", "z"), splats.positions),
        **dict.fromkeys(("nx", "ny", "nz"), torch.zeros_like(splats.positions)),
        **dict.fromkeys(("f_dc_0", "f_dc_1", "f_dc_2"), splats.harmonics()[:, 0]),
        "opacity": logit,
        **dict.fromkeys(("scale_0", "scale_1", "scale_2"), splats.scales.double().log()),
        **dict.fromkeys(("rot_0", "rot_1", "rot_2", "rot_3"), splats.rotations),
    }
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(splats)}"]
    header += [*(f"property float {name}" for name in columns), "end_header", ""]
    groups = list({id(values): values for values in columns.values()}.values())
    table = torch.cat([values.detach().cpu().float() for values in groups], dim=1)
    return "\n".join(header).encode("ascii") + table.numpy().astype("<f4").tobytes()


def _axes(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Axes (N, 3, 3), in columns, of the ellipse that steps (N, 3) span, its normal last, and the lengths (N, 2)."""
    a, b, c = (first * first).sum(1), (first * second).sum(1), (second * second).sum(1)
    middle, spread = (a + c) / 2, torch.hypot((a - c) / 2, b)
    lengths = torch.stack([middle + spread, (middle - spread).clamp(min=0.0)], dim=1).sqrt()
    angle = 0.5 * torch.atan2(2 * b, a - c)
    long = F.normalize(first * angle.cos()[:, None] + second * angle.sin()[:, None], dim=1, eps=1e-30)
    normal = F.normalize(torch.linalg.cross(first, second), dim=1, eps=1e-30)
    return torch.stack([long, torch.linalg.cross(normal, long), normal], dim=2), lengths


def _quaternions(axes: Tensor) -> Tensor:
    from scipy.spatial.transform import Rotation  # here, because it takes long to import

    turned = Rotation.from_matrix(axes.cpu().numpy()).as_quat()
    return torch.from_numpy(np.roll(turned, 1, axis=1)).float()
