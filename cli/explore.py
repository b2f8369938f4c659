"""What `mforce explore` does: a camera path through a picture, and the files of the scene that grows on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..mforce_core.explore.filling import FillSettings, PipelineFill
from ..mforce_core.explore.route import STEREO, cameras_of, route_cameras
from ..mforce_core.explore.view import Filled
from ..mforce_core.explore.walk import Step, extend, frame
from ..mforce_core.explore.world import Camera, World
from ..mforce_core.inputs import take_depth, take_picture
from ..mforce_core.picture.color import to_bytes
from ..mforce_core.picture.reading import read_picture
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.release import FOV_DEGREES
from ..mforce_core.results.folder import MARKER, output_folder
from ..mforce_core.rollout_settings import fitted
from ..mforce_core.scene3d.camera_files import OPENCV, CameraPath, read_json, write_json
from ..mforce_core.scene3d.camera_path import middle_point
from ..mforce_core.scene3d.densify import solid_density
from ..mforce_core.scene3d.point_cloud import intrinsics_from_fov
from ..mforce_core.scene3d.point_cloud_files import to_ply
from ..mforce_core.scene3d.poses import Pose
from ..mforce_core.scene3d.stereo import compose
from ..mforce_core.settings import Settings
from ..mforce_core.text_file import read_text
from ..mforce_core.video.writer import VideoWriter
from .export import open_scene, save_picture
from .generation import load_pipeline, prepare
from .progress import progress_bar, say

_RATE = Fraction(24)


@dataclass(frozen=True)
class Way:
    """Where the camera goes.

    Attributes:
        route, amplitude: as `route_cameras` takes them.
        views: that are filled.
        frames: of the clip.
        layout: of both eyes, for stereo.
        cameras: JSON file of cameras in place of the route.
    """

    route: str
    amplitude: float
    views: int
    frames: int
    layout: str
    cameras: Path | None = None

    def check(self) -> None:
        """See that the file of cameras holds some, before depth is made of a picture.

        Raises:
            ValueError: it does not.
        """
        if self.cameras is not None:
            self._of_file(torch.eye(3), (1, 1))

    def places(self, count: int, own: Camera, depth: Tensor) -> list[Camera]:
        """``count`` cameras, for a picture's camera and its depth (H, W)."""
        if self.cameras is not None:
            return self._of_file(own.lens, (depth.shape[0], depth.shape[1]))
        pivot = middle_point(depth, depth > 0, own.lens)
        return route_cameras(self.route, count, self.amplitude, own, pivot)

    def _of_file(self, lens: Tensor, size: tuple[int, int]) -> list[Camera]:
        assert self.cameras is not None
        try:
            return cameras_of(*read_json(read_text(self.cameras), lens, size))
        except ValueError as error:
            raise ValueError(f"{self.cameras.name}: {error}") from None


def explore(
    source: Path,
    depth: Path | None,
    fov: float | None,
    settings: Settings,
    filling: FillSettings,
    way: Way,
    output: Path,
    *,
    overwrite: bool = False,
) -> Path:
    """Walk from a picture into a folder.

    Args:
        source: picture, or the folder of a result.
        depth: file with the picture's depth; None makes it.
        fov: horizontal field of view of the picture in degrees; None: the result's, else 65.

    Raises:
        ValueError: a file or a camera cannot be used.
    """
    way.check()
    with output_folder(output, overwrite=overwrite) as work:
        settings, parts = prepare(settings)
        settings = fitted(settings, parts.header().config.distilled, ())
        pipeline = load_pipeline([replace(settings, prompt=filling.prompt)], parts)
        first, own = _first_view(source, depth, fov, pipeline, settings)
        fill, world = PipelineFill(pipeline, filling), World(device=pipeline.device)
        world.add(own, first)
        places = way.places(way.views, own, first.depth)
        with progress_bar("explore") as advance:
            steps = _walk(world, places, fill, advance)
        _write(work, world, steps, way, own, first.depth)
        record = {"source": str(source.absolute()), "filling": asdict(fill.settings), "way": asdict(way)}
        (work / MARKER).write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
    return output


def _first_view(
    source: Path, depth: Path | None, fov: float | None, pipeline: Pipeline, settings: Settings
) -> tuple[Filled, Camera]:
    """Picture, depth and camera on the model's canvas; what does not fit it is cut off."""
    job = replace(settings, fit="crop", original_size=False)
    if source.is_dir() or depth is not None:
        scene = open_scene(source if depth is None else depth, None if depth is None else source, fov)
        found = take_depth(torch.where(scene.valid, scene.depth, torch.nan).numpy(), job).depth
        picture = take_picture(to_bytes(scene.image).numpy(), job).rgb
        (height, width), focal = scene.depth.shape, float(scene.camera[0, 0])
    else:
        result = pipeline.i2d(source, fit="crop", original_size=False, seed=settings.seed, steps=settings.steps)
        picture, found = result.image, result.depth
        width, height = read_picture(source).image.size
        focal = float(intrinsics_from_fov(height, width, fov or FOV_DEGREES)[0, 0])
    assert picture is not None
    assert found is not None
    rows, columns = found.shape
    focal /= min(1.0, columns * height / (rows * width))  # of the width that is left
    lens = torch.tensor([[focal, 0.0, 0.5], [0.0, focal * columns / rows, 0.5], [0.0, 0.0, 1.0]])
    known = torch.from_numpy(np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)).float()
    view = Filled(torch.from_numpy(picture.copy()).float() / 255, known)
    return view, Camera(Pose(torch.eye(3), torch.zeros(3)), lens)


def _walk(
    world: World,
    places: list[Camera],
    fill: PipelineFill,
    advance: Callable[[int, int], None],
) -> list[Step]:
    done = 0

    def progress() -> None:
        nonlocal done
        done += 1
        advance(min(done, total), total)

    fill.progress = progress
    total = fill.steps * len(places)
    walked = []
    for number, camera in enumerate(places):
        walked.append(extend(world, camera, fill, number))
        done = fill.steps * (number + 1)  # a view without a hole takes none
        advance(done, total)
    return walked


def _write(work: Path, world: World, steps: list[Step], way: Way, own: Camera, depth: Tensor) -> None:
    """The filled views, their depth and cameras, the cloud, and the clip or both eyes."""
    height, width = depth.shape
    for number, step in enumerate(steps):
        save_picture(step.view.color, work / f"view.{number + 1:04}.png")
        np.save(work / f"depth.{number + 1:04}.npy", step.view.depth.numpy())
    cameras = CameraPath(
        torch.stack([step.camera.lens for step in steps]),
        torch.stack([step.camera.extrinsics for step in steps]),
        (height, width),
    )
    write_json(work / "transforms.json", cameras, 1, "view")
    write_json(work / "cameras_opencv.json", cameras, 1, "view", OPENCV)
    (work / "scene.ply").write_bytes(to_ply(world.cloud(density=solid_density(max(height, width)))))
    places = way.places(way.frames, own, depth)
    if way.route == STEREO and way.cameras is None:
        left, right = (frame(world, camera)[0] for camera in places)
        save_picture(left, work / "left.png")
        save_picture(right, work / "right.png")
        save_picture(compose(left, right, way.layout), work / "stereo.png")
        return
    with progress_bar("clip") as advance:
        _write_clip(work, _frames(world, places, advance))


def _frames(world: World, places: list[Camera], advance: Callable[[int, int], None]) -> Iterator[np.ndarray]:
    """One at a time, as it is written: (H, W, 3) uint8."""
    for number, camera in enumerate(places):
        advance(number, len(places))
        yield to_bytes(frame(world, camera)[0]).numpy()
    advance(len(places), len(places))


def _write_clip(work: Path, frames: Iterator[np.ndarray]) -> None:
    """A video or, where the package that writes it is missing, its frames."""
    try:
        clip = VideoWriter(work / "clip.mp4", _RATE)
    except ModuleNotFoundError as error:
        say(f"No clip was written, but its frames: {error}")
        for number, picture in enumerate(frames):
            Image.fromarray(picture).save(work / f"clip.{number + 1:04}.png")
        return
    with clip:
        for picture in frames:
            clip.write(picture)
