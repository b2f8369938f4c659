"""Rendering the frames of a camera move inside ComfyUI: on its device, with its progress bar, until it is interrupted.

Relies on: ``comfy.model_management`` for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import comfy.model_management
import torch
from torch import Tensor

from ...mforce_core.depth.edges import scaled_edge_threshold
from ...mforce_core.scene3d.camera_path import Move, middle_point
from ...mforce_core.scene3d.poses import Pose, extrinsics_of, moved
from ...mforce_core.scene3d.viewer import Shot, between, seen_by
from .progress import with_progress


@dataclass(frozen=True)
class Footage:
    """What the camera looks at: one map for a whole clip, or one per frame.

    Attributes:
        depth: (B, H, W).
        valid: (B, H, W) bool.
        pictures: (B or 1, H, W, 3) in [0, 1].
        cameras: (B, 3, 3), normalized by the picture's size.
        enlarged: by how much the maps were enlarged.
    """

    depth: Tensor
    valid: Tensor
    pictures: Tensor
    cameras: Tensor
    enlarged: float = 1.0


@dataclass(frozen=True)
class Camera:
    """The camera of one frame: a move from where the picture was taken, or from a shot of a viewer's camera."""

    move: Move
    base: Shot | None = None

    def pose(self, pivot: Tensor) -> Pose:
        """The pose, where (3,) pivot is what the picture's own camera aims at."""
        if self.base is None:
            return self.move.pose(pivot)
        return moved(self.base.pose, self.move.pose(torch.tensor([0.0, 0.0, self.base.distance])))

    def seen_by(self, place: Tensor) -> Camera:
        """The same where the base is a shot in the world, for the map of a camera with extrinsics (4, 4)."""
        return self if self.base is None else replace(self, base=seen_by(self.base, place))

    def lens_for(self, own: Tensor, height: int, width: int) -> Tensor:
        """(3, 3) camera matrix, normalized; own: that of the picture's camera."""
        return own if self.base is None else self.base.lens(height, width)


@dataclass(frozen=True)
class Given:
    """The camera of one frame, as it is."""

    where: Pose
    lens: Tensor

    def pose(self, pivot: Tensor) -> Pose:
        return self.where

    def lens_for(self, own: Tensor, height: int, width: int) -> Tensor:
        return self.lens


def shots(first: Shot | None, last: Shot | None, own: Shot, moves: Sequence[Move]) -> list[Camera]:
    """Cameras of frames: at the first shot, or on the way from it to the last one, each with a move of its own.

    Args:
        first: None for where the picture was taken.
        own: the camera that took the picture.
    """
    if last is None:
        return [Camera(move, first) for move in moves]
    steps = max(1, len(moves) - 1)
    return [Camera(move, between(first or own, last, frame / steps)) for frame, move in enumerate(moves)]


@dataclass(frozen=True)
class Frames:
    """What was rendered.

    Attributes:
        pictures: (F, H, W, 3).
        holes: (F, H, W), 1 where a pixel is not wholly covered.
        depth: (F, H, W), 0 in holes.
        lenses: (F, 3, 3), normalized by the picture's size.
        extrinsics: (F, 4, 4), from the axes of the picture's camera to those of the frame's.
    """

    pictures: Tensor
    holes: Tensor
    depth: Tensor
    lenses: Tensor
    extrinsics: Tensor


def render_frames(
    footage: Footage,
    cameras: Sequence[Camera] | Sequence[Given],
    *,
    edge_threshold: float,
    edge_softness: int,
    samples: int,
    fill: bool,
) -> Frames:
    """One frame per camera.

    Args:
        edge_threshold: relative jump of depth at which a surface ends; 0 chooses by the size that the maps had before
            they were enlarged.
        edge_softness: width in pixels of the soft edges of the depth maps.
        samples: along the side of a pixel.
        fill: continue the background into the holes.

    Raises:
        ValueError: a map without a valid pixel.
    """
    # Imported here: the renderer's modules are many, and ComfyUI's start need not wait for them.
    from ...mforce_core.scene3d.holes import fill_from_background
    from ...mforce_core.scene3d.render_view import View, render_view
    from ...mforce_core.scene3d.side_by_side import in_order
    from ...mforce_core.scene3d.surface import Surface, build_surface
    from ...mforce_core.scene3d.z_buffer import drawing_device

    maps, height, width = footage.depth.shape
    device = drawing_device(comfy.model_management.get_torch_device())
    threshold = edge_threshold or scaled_edge_threshold(max(height, width) / footage.enlarged)

    def surface_of(index: int) -> Surface:
        depth, valid = footage.depth[index], footage.valid[index]
        if not valid.any():
            raise ValueError(f"depth map {index} of geometry has no valid pixel, so there is nothing to see.")
        return build_surface(depth.to(device), valid.to(device), edge_threshold=threshold, softness=edge_softness)

    still = surface_of(0) if maps == 1 else None

    def frame_of(number: int) -> tuple[View, Tensor, Tensor, Pose]:
        index, camera = min(number, maps - 1), cameras[number]
        intrinsics = footage.cameras[index]
        pose = camera.pose(middle_point(footage.depth[index], footage.valid[index], intrinsics))
        lens = camera.lens_for(intrinsics, height, width)
        picture = footage.pictures[min(index, len(footage.pictures) - 1)].to(device)
        surface = surface_of(index) if still is None else still
        view = render_view(surface, picture, intrinsics, pose, samples=samples, lens=lens)
        if fill:
            return view, fill_from_background(view.color, view.coverage, view.depth), lens, pose
        return view, view.color * view.coverage[..., None], lens, pose

    count = len(cameras)
    frames = Frames(
        torch.empty(count, height, width, 3),
        torch.empty(count, height, width),
        torch.empty(count, height, width),
        torch.empty(count, 3, 3),
        torch.empty(count, 4, 4),
    )
    results = in_order(frame_of, range(count), device)
    for number, (view, picture, lens, pose) in zip(with_progress(range(count)), results, strict=True):
        frames.pictures[number] = picture
        frames.holes[number] = (view.coverage < 1.0).float()
        frames.depth[number] = view.depth
        frames.lenses[number], frames.extrinsics[number] = lens, extrinsics_of(pose)
    return frames


def own_shot(camera: Tensor, pivot: Tensor) -> Shot:
    """The shot of the camera (3, 3) that took a picture, aimed at (3,) pivot."""
    return Shot(Pose(torch.eye(3), torch.zeros(3)), float(pivot[2]), float(camera[1, 1]))
