"""Depth map to colored point cloud, with the conventions of the Modality Forcing release.

A pinhole camera with square pixels and the principal point in the middle of the picture, pixel centers at
+0.5, points in glTF axes (x right, y up, the camera looking along -z). Depth is z-depth: the distance along
the optical axis. It has no unit here: predicted depth is relative, and so is the size of the cloud.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..depth.codec import valid_pixels
from ..depth.disparity import disparity_of
from ..depth.edges import depth_edges
from ..picture.color import to_bytes
from ..release import EDGE_THRESHOLD, FOV_DEGREES, MAX_POINTS
from .surface import links, slopes

#: Nearest neighbors that a point's distance to the rest of the cloud is the mean of.
_NEIGHBORS = 5


@dataclass(frozen=True)
class PointCloud:
    """Points with a color each.

    points: (M, 3) float32, glTF axes. colors: (M, 3) uint8 RGB, or None. pixels: (M,) int64, the row-major
    index of the pixel that each point came from, or None where they are of no one picture. normals: (M, 3)
    unit vectors out of the surface, or None. offset: what was taken off all points, so that the camera that saw them
    is at minus this.
    """

    points: Tensor
    colors: Tensor | None
    pixels: Tensor | None
    normals: Tensor | None = None
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __len__(self) -> int:
        return self.points.shape[0]

    def select(self, keep: Tensor) -> PointCloud:
        """The points named by a boolean mask (M,) or by indices."""
        colors, pixels, normals = (
            None if values is None else values[keep] for values in (self.colors, self.pixels, self.normals)
        )
        return PointCloud(self.points[keep], colors, pixels, normals, self.offset)

    def limited(self, max_points: int | None) -> PointCloud:
        """At most ``max_points`` points, drawn at random with a fixed seed, in their order; None for no limit."""
        if max_points is None or len(self) <= max_points:
            return self
        # Every n-th pixel would alias with the rows of the picture; a fixed seed keeps the choice repeatable.
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))
        return self.select(order[:max_points].sort().values.to(self.points.device))

    def centered(self) -> PointCloud:
        """The same cloud with its coordinate-wise median at the origin, which viewers orbit around."""
        if not len(self):
            return self
        median = self.points.median(dim=0).values
        x, y, z = (before + more for before, more in zip(self.offset, median.tolist(), strict=True))
        return replace(self, points=self.points - median, offset=(x, y, z))


def unproject(
    depth: Tensor,
    *,
    fov_degrees: float = FOV_DEGREES,
    intrinsics: Tensor | None = None,
    rgb: Tensor | None = None,
    normals: Tensor | None = None,
    valid: Tensor | None = None,
    edge_threshold: float | None = EDGE_THRESHOLD,
    remove_outliers: bool = False,
    max_points: int | None = MAX_POINTS,
) -> PointCloud:
    """The points seen by the pixels of one depth map, in row-major order of the pixels that are kept.

    Args:
        depth: (H, W) z-depth. Pixels that are zero, negative, NaN or infinite have no point.
        fov_degrees: horizontal field of view, in degrees; not used where `intrinsics` is given.
        intrinsics: (3, 3) camera matrix *normalized* by the picture's size as MoGe's are: fx and cx in
            picture widths, fy and cy in picture heights, so that the middle of the picture is (0.5, 0.5).
        rgb: (H, W, 3) colors, uint8 or floats in [0, 1].
        normals: (H, W, 3) in camera axes (x right, y down, z forward), see `surface_normals`.
        valid: (H, W) bool, pixels that may have a point; None for all.
        edge_threshold: leave out pixels whose 3x3 neighborhood spans more than this fraction of their depth:
            the streaks between a near object and what is behind it. A missing neighbor makes an edge.
            None keeps them.
        remove_outliers: leave out points far from their neighbors (see `inliers`). Needs scipy.
        max_points: at most this many points, drawn at random with a fixed seed; None for no limit.

    Raises:
        ValueError: wrong shapes, an impossible camera, or no pixel left to show.
    """
    if depth.ndim != 2:
        raise ValueError(f"depth must have shape (H, W), got {tuple(depth.shape)}; give one map at a time.")
    height, width = depth.shape
    if rgb is not None and rgb.shape != (height, width, 3):
        raise ValueError(f"rgb must have shape {(height, width, 3)} like the depth, got {tuple(rgb.shape)}.")
    if normals is not None and normals.shape != (height, width, 3):
        raise ValueError(f"normals must have shape {(height, width, 3)} like the depth, got {tuple(normals.shape)}.")
    if valid is not None and valid.shape != (height, width):
        raise ValueError(f"valid must have shape {(height, width)} like the depth, got {tuple(valid.shape)}.")
    if intrinsics is None:
        intrinsics = intrinsics_from_fov(height, width, fov_degrees)

    depth = _known_depth(depth, valid)
    keep = depth > 0
    if edge_threshold is not None:
        keep &= ~depth_edges(depth, edge_threshold)
    if not keep.any():
        raise ValueError(
            "The depth map has no pixel to make a point of: all are invalid or depth edges. "
            "Check the depth, or raise edge_threshold."
        )
    to_gltf = depth.new_tensor([1.0, -1.0, -1.0])
    points = camera_points(depth, intrinsics)[keep] * to_gltf
    pixels = keep.flatten().nonzero().squeeze(1)
    colors = None
    if rgb is not None:
        colors = (rgb if rgb.dtype == torch.uint8 else to_bytes(rgb)).to(depth.device)[keep]
    cloud = PointCloud(points, colors, pixels, None if normals is None else normals[keep] * to_gltf)
    if remove_outliers:
        cloud = cloud.select(inliers(cloud.points))
    return cloud.limited(max_points)


def merge(clouds: Sequence[PointCloud]) -> PointCloud:
    """All points of one or more clouds, with colors where all of them have some, and normals likewise."""

    def together(parts: list[Tensor | None]) -> Tensor | None:
        given = [part for part in parts if part is not None]
        return torch.cat(given) if len(given) == len(parts) else None

    offsets = {cloud.offset for cloud in clouds}
    return PointCloud(
        torch.cat([cloud.points for cloud in clouds]),
        together([cloud.colors for cloud in clouds]),
        None if len(clouds) > 1 else clouds[0].pixels,
        together([cloud.normals for cloud in clouds]),
        offsets.pop() if len(offsets) == 1 else (0.0, 0.0, 0.0),
    )


def seen_from(cloud: PointCloud, extrinsics: Tensor) -> PointCloud:
    """A cloud of one camera in the axes of a common world, y up as glTF's.

    Args:
        extrinsics: (4, 4), from the world to the camera, both with x right, y down and z forward.
    """
    flip = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    turn, shift = extrinsics[:3, :3].double(), extrinsics[:3, 3].double()
    points = ((cloud.points.double() * flip - shift) @ turn * flip).float()
    normals = None if cloud.normals is None else (cloud.normals.double() * flip @ turn * flip).float()
    return replace(cloud, points=points, normals=normals)


def surface_normals(
    depth: Tensor, intrinsics: Tensor, *, valid: Tensor | None = None, edge_threshold: float = EDGE_THRESHOLD
) -> Tensor:
    """(H, W, 3) unit normals of a depth map (H, W), towards the camera, in camera axes.

    From the slopes of 1 / depth to the neighbors on the same surface, which for a plane are exact: where
    1 / z = p + a (u - u0) + b (v - v0), and u = fx x / z + cx, the plane is
    a fx x + b fy y + (p + a (cx - u0) + b (cy - v0)) z = 1.

    Args:
        intrinsics: (3, 3) normalized, as in `unproject`.
        valid: (H, W) bool, further pixels that have no surface.
        edge_threshold: neighbors whose depths differ by more than this fraction are on different surfaces.
    """
    focal_x, focal_y, center_x, center_y = _camera(intrinsics)
    height, width = depth.shape
    depth = _known_depth(depth, valid)
    known = depth > 0
    disparity = disparity_of(depth, known)
    a = slopes(disparity, links(disparity, known, edge_threshold)) * width
    b = slopes(disparity.T, links(disparity.T, known.T, edge_threshold)).T * height
    columns = (torch.arange(width, device=depth.device) + 0.5) / width
    rows = (torch.arange(height, device=depth.device) + 0.5) / height
    ahead = disparity + a * (center_x - columns) + b * (center_y - rows)[:, None]
    return F.normalize(torch.stack([-a * focal_x, -b * focal_y, -ahead], dim=-1), dim=-1, eps=1e-30)


def intrinsics_from_fov(height: int, width: int, fov_degrees: float = FOV_DEGREES) -> Tensor:
    """(3, 3) normalized camera matrix for square pixels and a horizontal field of view in degrees."""
    if not 0.0 < fov_degrees < 180.0:
        raise ValueError(f"The field of view must be between 0 and 180 degrees, got {fov_degrees}.")
    focal = 0.5 / math.tan(math.radians(fov_degrees) / 2.0)  # in picture widths
    return torch.tensor([[focal, 0.0, 0.5], [0.0, focal * width / height, 0.5], [0.0, 0.0, 1.0]])


def camera_points(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """(H, W, 3) points in camera axes (x right, y down, z forward) of a (H, W) depth map.

    intrinsics: (3, 3) normalized, as in `unproject`.
    """
    focal_x, focal_y, center_x, center_y = _camera(intrinsics)
    height, width = depth.shape
    columns = (torch.arange(width, device=depth.device) + 0.5) / width
    rows = (torch.arange(height, device=depth.device) + 0.5) / height
    x = depth * ((columns - center_x) / focal_x)
    y = depth * ((rows - center_y) / focal_y)[:, None]
    return torch.stack([x, y, depth], dim=-1)


def inliers(points: Tensor) -> Tensor:
    """(M,) bool: points whose mean distance to their five nearest neighbors is not unusually large.

    Unusual is one standard deviation above the mean of that distance over the cloud, as in the release. Clouds too
    small to have that many neighbors are kept whole. Needs scipy.
    """
    if len(points) <= _NEIGHBORS:
        return torch.ones(len(points), dtype=torch.bool, device=points.device)
    from scipy.spatial import cKDTree

    array = points.detach().cpu().double().numpy()
    # The nearest point of all is the point itself, at distance zero.
    distances = cKDTree(array).query(array, k=_NEIGHBORS + 1, workers=-1)[0][:, 1:].mean(axis=1)
    keep = distances <= distances.mean() + distances.std()
    return torch.from_numpy(keep).to(points.device)


def _known_depth(depth: Tensor, valid: Tensor | None) -> Tensor:
    """Float32 depth with zero wherever there is none."""
    depth = depth.float()
    known = valid_pixels(depth, None if valid is None else valid.to(depth.device))
    return torch.where(known, depth, torch.zeros_like(depth))


def _camera(intrinsics: Tensor) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of a normalized camera matrix."""
    if tuple(intrinsics.shape) != (3, 3):
        raise ValueError(f"intrinsics must have shape (3, 3), got {tuple(intrinsics.shape)}.")
    matrix = intrinsics.double().tolist()
    focal_x, focal_y, center_x, center_y = matrix[0][0], matrix[1][1], matrix[0][2], matrix[1][2]
    if not all(map(math.isfinite, (focal_x, focal_y, center_x, center_y))) or focal_x <= 0 or focal_y <= 0:
        raise ValueError("intrinsics must be finite with positive focal lengths at [0, 0] and [1, 1].")
    if max(center_x, center_y) > 16.0:
        raise ValueError(
            f"intrinsics look to be in pixels (principal point {center_x:g}, {center_y:g}): divide the "
            "first row by the picture's width and the second by its height."
        )
    return focal_x, focal_y, center_x, center_y
