"""What `mforce export` does: a picture and its depth into files for 3D programs and compositors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..mforce_core.depth.edges import scaled_edge_threshold
from ..mforce_core.depth.files import read_depth
from ..mforce_core.depth.layered_exr import Layers, write_layers
from ..mforce_core.picture.color import to_bytes
from ..mforce_core.picture.reading import read_picture
from ..mforce_core.release import FOV_DEGREES
from ..mforce_core.results.folder import MARKER
from ..mforce_core.scene3d import point_cloud_files, splats
from ..mforce_core.scene3d.camera_files import CameraPath, write_chan, write_json, write_usd
from ..mforce_core.scene3d.camera_path import path_moves
from ..mforce_core.scene3d.holes import fill_from_background
from ..mforce_core.scene3d.passes import ambient_occlusion, normal_pass, position_pass
from ..mforce_core.scene3d.point_cloud import intrinsics_from_fov, surface_normals, unproject
from ..mforce_core.scene3d.poses import Pose, extrinsics_of
from ..mforce_core.scene3d.render_view import render_view
from ..mforce_core.scene3d.side_by_side import in_order
from ..mforce_core.scene3d.stereo import compose, eye_cameras
from ..mforce_core.scene3d.surface import Surface, build_surface
from ..mforce_core.whole_file import whole_file
from .progress import say

_SOFTNESS = 2  # pixels
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
_OCCLUSION_RADIUS = 0.15  # of the median depth


@dataclass(frozen=True)
class Scene:
    """A picture (H, W, 3) in [0, 1], its depth (H, W) with valid (H, W) bool, and the camera (3, 3), normalized."""

    image: Tensor
    depth: Tensor
    valid: Tensor
    camera: Tensor

    @property
    def edge_threshold(self) -> float:
        """The relative jump of depth at which a surface ends."""
        return scaled_edge_threshold(max(self.depth.shape))

    @property
    def distance(self) -> float:
        """Median depth."""
        return float(self.depth[self.valid].median())


def open_scene(
    source: Path, image: Path | None, fov: float | None, disparity: bool | None = None, far_to_near: float | None = None
) -> Scene:
    """A result's folder, or a depth file with its picture; without one, it is gray.

    ``disparity`` and ``far_to_near`` as in :func:`..mforce_core.depth.files.read_depth`.

    Raises:
        ValueError: a file cannot be read, or no camera has this field of view.
    """
    if fov is not None and not 0 < fov < 180:
        raise ValueError(f"`fov` must be between 0 and 180 degrees, got {fov:g}.")
    if source.is_dir():
        if not (source / MARKER).is_file():
            inside = sorted(folder.parent.name for folder in source.glob(f"*/{MARKER}"))
            if inside:
                raise ValueError(f"{source} holds {len(inside)} results: give one of them, as in {source / inside[0]}.")
            raise ValueError(f"{source} is not a result of mforce: give its folder, or a depth file.")
        settings = json.loads((source / MARKER).read_text(encoding="utf-8")).get("settings", {})
        fov = fov or float(settings.get("fov", FOV_DEGREES))
        source, image = source / "depth.npy", image or source / "rgb.png"
    read = read_depth(source, disparity=disparity, far_to_near=far_to_near)
    notes = list(read.notes)
    height, width = read.depth.shape
    picture: np.ndarray = np.full((height, width, 3), 0.7, np.float32)
    if image is not None:
        found = read_picture(image)
        notes += found.notes
        shown = found.image
        if shown.size != (width, height):
            shown = shown.resize((width, height), Image.Resampling.LANCZOS)
            notes.append(f"{image.name} was resized to the depth's {width}x{height}.")
        picture = np.asarray(shown, dtype=np.float32) / 255
    for note in notes:
        say(note)
    depth = torch.from_numpy(read.depth)
    valid = torch.isfinite(depth)
    camera = intrinsics_from_fov(height, width, fov or FOV_DEGREES)
    return Scene(torch.from_numpy(picture), torch.where(valid, depth, 0.0), valid, camera)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that is there already, before anything is computed, unless it may be replaced.

    Raises:
        ValueError: the path is taken, or its folder does not exist.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file in it with `output`.")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists already: name another with `output`, or add `overwrite`.")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"The folder {path.parent} does not exist: make it first, or name another with `output`.")


def write_cloud(scene: Scene, output: Path, normals: bool) -> None:
    """A point cloud as PLY or GLB, by the file's ending, the camera at the origin."""
    writers = {".ply": point_cloud_files.to_ply, ".glb": point_cloud_files.to_glb}
    _check_ending(output, writers)
    threshold = scene.edge_threshold
    upright = None
    if normals:
        upright = surface_normals(scene.depth, scene.camera, valid=scene.valid, edge_threshold=threshold)
    cloud = unproject(
        scene.depth,
        intrinsics=scene.camera,
        rgb=scene.image,
        valid=scene.valid,
        normals=upright,
        edge_threshold=threshold,
        max_points=None,
    )
    with whole_file(output) as partial:
        partial.write_bytes(writers[output.suffix.lower()](cloud))


def write_splats(scene: Scene, output: Path, size: float) -> None:
    """Gaussian splats as a 3DGS .ply."""
    _check_ending(output, {".ply": None})
    found = splats.splats_of(
        scene.depth, scene.valid, scene.camera, scene.image, edge_threshold=scene.edge_threshold, size=size
    )
    with whole_file(output) as partial:
        partial.write_bytes(splats.to_ply(found))


def write_passes(scene: Scene, output: Path) -> None:
    """Picture, depth and all passes as a layered EXR."""
    _check_ending(output, {".exr": None})
    known, camera, threshold = scene.valid, scene.camera, scene.edge_threshold
    radius = _OCCLUSION_RADIUS * scene.distance
    passes = (
        normal_pass(scene.depth, known, camera, threshold),
        position_pass(scene.depth, known, camera),
        ambient_occlusion(scene.depth, known, camera, radius=radius, edge_threshold=threshold),
    )
    depth = torch.where(known, scene.depth, torch.nan)
    layers = Layers(scene.image.numpy(), depth.numpy(), *(values.numpy() for values in passes))
    with whole_file(output) as partial:
        write_layers(partial, layers)


def write_stereo(scene: Scene, output: Path, layout: str, baseline: float, eyes: str) -> None:
    """Both eyes in one picture; the screen is at the median depth."""
    _check_ending(output, dict.fromkeys(_PICTURES))
    surface, screen = _surface(scene), scene.distance
    left, right = (
        _view(scene, surface, pose, lens) for pose, lens in eye_cameras(scene.camera, baseline * screen, screen, eyes)
    )
    with whole_file(output) as partial:
        save_picture(compose(left, right, layout), partial)


def write_views(
    scene: Scene, folder: Path, path: str, frames: int, amplitude: float, advance: Callable[[int, int], None]
) -> None:
    """The frames of a camera's path, ``view.0001.png`` and so on, and the path itself for Nuke and NeRF tools."""
    surface = _surface(scene)
    pivot = torch.tensor([0.0, 0.0, scene.distance])
    poses = [move.pose(pivot) for move in path_moves(path, frames, amplitude)]
    pictures = in_order(lambda pose: _view(scene, surface, pose), poses, torch.device("cpu"))
    for index, picture in enumerate(pictures):
        save_picture(picture, folder / f"view.{index + 1:04}.png")
        advance(index + 1, frames)
    height, width = scene.depth.shape
    places = torch.stack([extrinsics_of(pose) for pose in poses])
    cameras = CameraPath(scene.camera.expand(frames, 3, 3), places, (height, width))
    write_chan(folder / "camera.chan", cameras, 1)
    write_json(folder / "transforms.json", cameras, 1, "view")
    try:
        write_usd(folder / "camera.usda", cameras, 1, 24.0)
    except ModuleNotFoundError as error:
        say(f"No USD camera was written: {error}")


def _surface(scene: Scene) -> Surface:
    return build_surface(scene.depth, scene.valid, edge_threshold=scene.edge_threshold, softness=_SOFTNESS)


def _view(scene: Scene, surface: Surface, pose: Pose, lens: Tensor | None = None) -> Tensor:
    view = render_view(surface, scene.image, scene.camera, pose, lens=lens)
    return fill_from_background(view.color, view.coverage, view.depth)


def save_picture(picture: Tensor, path: Path) -> None:
    """Write a picture (H, W, 3) in [0, 1]; the format is by the ending of ``path``."""
    Image.fromarray(to_bytes(picture).numpy()).save(path)


def _check_ending(path: Path, known: dict) -> None:
    if path.suffix.lower() not in known:
        raise ValueError(f"{path.name} must end in {' or '.join(known)}.")
