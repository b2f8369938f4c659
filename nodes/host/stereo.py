"""Both eyes' views of the frames of a clip.

Relies on: nothing of ComfyUI's beyond what `.views` does.
"""

from __future__ import annotations

from torch import Tensor

from ...mforce_core.scene3d.camera_path import middle_point
from ...mforce_core.scene3d.stereo import eye_cameras
from .views import Footage, Given, render_frames


def render_eyes(
    footage: Footage,
    *,
    baseline: float,
    convergence: float,
    eyes: str,
    edge_threshold: float,
    edge_softness: int,
    fill: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Pictures (B, H, W, 3) and holes (B, H, W) of the left and the right eye.

    Args:
        baseline: between the eyes, as a fraction of the distance to the screen.
        convergence: depth on the screen; 0 takes the middle of the first picture for all.
        eyes: one of `mforce_core.scene3d.stereo.EYES`.
        edge_threshold, edge_softness, fill: as in `.views.render_frames`.
    """
    screen = convergence or float(middle_point(footage.depth[0], footage.valid[0], footage.cameras[0])[2])
    pairs = [eye_cameras(camera, baseline * screen, screen, eyes) for camera in footage.cameras]
    pictures, holes = [], []
    for eye in (0, 1):
        rendered = render_frames(
            footage,
            [Given(*pair[eye]) for pair in pairs],
            edge_threshold=edge_threshold,
            edge_softness=edge_softness,
            samples=2,
            fill=fill,
        )
        pictures.append(rendered.pictures)
        holes.append(rendered.holes)
    return pictures, holes
