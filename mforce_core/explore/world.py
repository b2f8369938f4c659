"""A scene that grows: a picture with depth, and the pieces that views from other cameras added to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d, pad

from ..depth.edges import depth_edges, scaled_edge_threshold
from ..scene3d.densify import densify
from ..scene3d.point_cloud import PointCloud, merge, seen_from, unproject
from ..scene3d.poses import Pose, extrinsics_of, relative
from ..scene3d.render_view import View, render_view
from ..scene3d.surface import Surface, build_surface
from ..scene3d.z_buffer import drawing_device
from .view import Filled

_NOTHING = PointCloud(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8), None)

_CPU = torch.device("cpu")

#: Pixels across which new surfaces have to be at least.
_SLIT = 3


class Camera(NamedTuple):
    """Where a camera stands in the world, which is the first picture's camera, and its lens (3, 3), normalized."""

    pose: Pose
    lens: Tensor

    @property
    def extrinsics(self) -> Tensor:
        """(4, 4), from the world to the camera."""
        return extrinsics_of(self.pose)


@dataclass(frozen=True)
class Piece:
    """What one camera added.

    view: whole, also where it shows what was known. surface: of its new pixels alone.
    """

    camera: Camera
    view: Filled
    surface: Surface


class World:
    """All that is known of a scene.

    Args:
        edge_threshold: relative jump of depth at which a surface ends; 0 chooses by the size of the first picture.
        softness: width in pixels of the soft edges of depth and pictures.
        device: that renders views, where it can; what goes in, stays and comes out is on the CPU, so that a long walk
            fills no GPU.
    """

    def __init__(self, *, edge_threshold: float = 0.0, softness: int = 2, device: torch.device = _CPU) -> None:
        self.edge_threshold, self.softness, self.device = edge_threshold, softness, drawing_device(device)
        self.pieces: list[Piece] = []

    def add(self, camera: Camera, view: Filled, new: Tensor | None = None) -> None:
        """Take what a view shows at its new pixels, (H, W) bool; None for all that have depth.

        Slits of a pixel or two, which open along every outline, stay open: whether they belong to what is in front or
        behind, no pixel says. Elsewhere the surface overlaps what was known, so that no crack opens between the two.
        """
        self.edge_threshold = self.edge_threshold or scaled_edge_threshold(max(view.depth.shape))
        valid = torch.isfinite(view.depth) & (view.depth > 0)
        depth = torch.where(valid, view.depth, torch.zeros_like(view.depth))
        surface = build_surface(
            depth.to(self.device), valid.to(self.device), edge_threshold=self.edge_threshold, softness=self.softness
        ).to(_CPU)
        view = Filled(view.color, depth)
        if new is None:
            self.pieces.append(Piece(camera, view, surface))
            return
        wide = without_slits(new)
        grown = max_pool2d(wide.float()[None, None], 3, stride=1, padding=1)[0, 0] > 0
        if grown.any():
            self.pieces.append(Piece(camera, view, replace(surface, valid=valid & grown)))

    def see(self, camera: Camera) -> View:
        """What a camera sees of all pieces, the nearest in front."""
        views = [
            render_view(
                piece.surface.to(self.device),
                piece.view.color.to(self.device),
                piece.camera.lens,
                relative(piece.camera.pose, camera.pose),
                lens=camera.lens,
            )
            for piece in self.pieces
        ]
        view = views[0] if len(views) == 1 else _together(views)
        return View(view.color.cpu(), view.coverage.cpu(), view.depth.cpu())

    def completed(self, camera: Camera, view: View) -> View:
        """A camera's view with what the pieces show in its holes."""
        if not self.pieces:
            return view
        own = self.see(camera)
        taken = ((view.coverage < 1) | (view.depth <= 0)) & (own.coverage >= 1) & (own.depth > 0)
        return View(
            torch.where(taken[..., None], own.color, view.color),
            torch.where(taken, own.coverage, view.coverage),
            torch.where(taken, own.depth, view.depth),
        )

    def cloud(self, *, density: int = 1) -> PointCloud:
        """The points of all pieces in the world's axes, y up as glTF's; density: points along the side of a pixel."""
        return merge([_NOTHING, *(self._points(piece, density) for piece in self.pieces)])

    def _points(self, piece: Piece, density: int) -> PointCloud:
        camera, depth, color = piece.camera, piece.view.depth, piece.view.color
        # Edges of the whole view: at the border of what is new there is none.
        known = piece.surface.valid & ~depth_edges(depth, self.edge_threshold)
        dense, known = densify(depth, known, density)
        if not known.any():
            return _NOTHING
        color = interpolate(color.movedim(-1, 0)[None], dense.shape, mode="bilinear", align_corners=False)
        cloud = unproject(
            dense,
            intrinsics=camera.lens,
            rgb=color[0].movedim(0, -1),
            valid=known,
            edge_threshold=None,
            max_points=None,
        )
        return seen_from(replace(cloud, pixels=None), camera.extrinsics)


def without_slits(holes: Tensor) -> Tensor:
    """(H, W) bool: the parts of holes that are more than two pixels wide."""
    known = pad((~holes).float()[None, None], (1, 1, 1, 1))  # a hole at the border goes on beyond it
    inside = max_pool2d(known, _SLIT, stride=1) == 0
    return max_pool2d(inside.float(), _SLIT, stride=1, padding=_SLIT // 2)[0, 0] > 0


def _together(views: list[View]) -> View:
    """Views of one camera in one: of every pixel the nearest surface first, and behind it what it leaves uncovered."""
    color, coverage, depth = (
        torch.stack(maps) for maps in zip(*((view.color, view.coverage, view.depth) for view in views), strict=True)
    )
    order = torch.where(coverage > 0, depth, torch.inf).argsort(dim=0, stable=True)
    depth, coverage = depth.gather(0, order), coverage.gather(0, order)
    color = color.gather(0, order[..., None].expand_as(color))
    # Pieces meet at the borders of holes, so their shares of a pixel there lie beside each other.
    total = coverage.cumsum(0).clamp(max=1.0)
    share = total.diff(dim=0, prepend=torch.zeros_like(total[:1]))
    mean = (share[..., None] * color).sum(0) / total[-1].clamp(min=1e-9)[..., None]
    # Never one of near and far: that of the piece which fills most of the pixel.
    most = depth.gather(0, share.argmax(0, keepdim=True))[0]
    return View(mean, total[-1], torch.where(total[-1] > 0, most, torch.zeros_like(most)))
