"""A camera's way through a clip as a file: Nuke's .chan, JSON as NeRF tools have it, and USD; JSON is read, too.

All but JSON in OpenCV's axes are y up, the camera looking along -z, and from the camera to the world, as Nuke, Maya,
Blender's cameras and OpenGL have them. The world is the picture's own camera, in the depth's unit.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: Width of the film that USD's focal lengths are for, in millimeters: that of Maya's and Blender's "full frame".
_FILM = 36.0
_CENTERED = 1e-4  # of the picture's size: a hundredth of a pixel of a small one

#: The horizontal angle of view in radians: all that many a transforms.json says of its lens.
_ANGLE = "camera_angle_x"

#: What nerfstudio, instant-ngp and COLMAP call lenses that a camera matrix describes, up to the coefficients below.
_STRAIGHT = {"PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "OPENCV", "FULL_OPENCV", "RADIAL", "SIMPLE_RADIAL"}
#: Coefficients of distortion, and the flag of a fisheye lens.
_DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_FISHEYE = "is_fisheye"

#: Whose axes the matrices of a JSON file are in, and how each of them is called there.
OPENGL, OPENCV = CONVENTIONS = ("OpenGL", "OpenCV")
_MATRIX = {OPENGL: "transform_matrix", OPENCV: "world_to_camera"}
_AXES = {
    OPENGL: "OpenGL: x right, y up, looking along -z; transform_matrix goes from the camera to the world",
    OPENCV: "OpenCV: x right, y down, looking along z; world_to_camera goes from the world to the camera",
}


@dataclass(frozen=True)
class CameraPath:
    """One camera per frame.

    Attributes:
        lenses: (F, 3, 3), normalized by the picture's size.
        extrinsics: (F, 4, 4), from the world to the camera, both with x right, y down and z forward (OpenCV).
        size: (height, width) of the picture in pixels.
    """

    lenses: Tensor
    extrinsics: Tensor
    size: tuple[int, int]

    def matrices(self) -> Tensor:
        """(F, 4, 4) float64 from the camera to the world, both y up, looking along -z (OpenGL)."""
        flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
        return flip @ torch.linalg.inv(self.extrinsics.double()) @ flip

    @property
    def centered(self) -> bool:
        """Whether all lenses sit at the middle of the picture and have square pixels."""
        height, width = self.size
        shift = (self.lenses[:, :2, 2] - 0.5).abs().max()
        stretch = (self.lenses[:, 0, 0] * width / (self.lenses[:, 1, 1] * height) - 1.0).abs().max()
        return bool(shift < _CENTERED and stretch < _CENTERED)

    def vertical_fov(self) -> list[float]:
        """Degrees, by frame."""
        return [2 * math.degrees(math.atan(0.5 / float(lens[1, 1]))) for lens in self.lenses]


def write_chan(path: Path, cameras: CameraPath, first_frame: int) -> None:
    """Nuke's text: frame, translation, rotation in degrees in the order ZXY (its cameras' own), vertical angle.

    It has no place for a lens that is not `CameraPath.centered`.
    """
    from scipy.spatial.transform import Rotation

    lines = []
    for index, (matrix, fov) in enumerate(zip(cameras.matrices(), cameras.vertical_fov(), strict=True)):
        # Nuke turns about z first, then x, then y, about axes that stay where they are.
        z, x, y = Rotation.from_matrix(matrix[:3, :3].numpy()).as_euler("zxy", degrees=True)
        numbers = [*matrix[:3, 3].tolist(), x, y, z, fov]
        lines.append("\t".join([str(first_frame + index), *(f"{number:.9g}" for number in numbers)]))
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def write_json(path: Path, cameras: CameraPath, first_frame: int, name: str, convention: str = OPENGL) -> None:
    """``transforms.json`` as instant-ngp and nerfstudio read it: OpenGL matrices from the camera to the world.

    Args:
        name: of the frames' pictures, ``name.0001.png``, beside the file.
        convention: of `CONVENTIONS`; OpenCV's matrices go from the world to the camera and are called world_to_camera.
    """
    height, width = cameras.size
    frames: list[dict[str, Any]] = []
    matrices = cameras.matrices() if convention == OPENGL else cameras.extrinsics
    for index, (matrix, lens) in enumerate(zip(matrices, cameras.lenses, strict=True)):
        frames.append(
            {
                "frame": first_frame + index,
                "file_path": f"{name}.{first_frame + index:04}.png",
                "fl_x": float(lens[0, 0]) * width,
                "fl_y": float(lens[1, 1]) * height,
                "cx": float(lens[0, 2]) * width,
                "cy": float(lens[1, 2]) * height,
                "w": width,
                "h": height,
                _MATRIX[convention]: matrix.tolist(),
            }
        )
    text = json.dumps({"camera_model": "PINHOLE", "convention": _AXES[convention], "frames": frames}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(text: str, own_lens: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Cameras of JSON that :func:`write_json` wrote, or of a ``transforms.json`` of NeRF tools.

    Args:
        own_lens: (3, 3), for cameras without one.
        size: (height, width) of the views; of cameras with pictures of another shape what does not fit is cut off.

    Returns:
        Lenses (F, 3, 3), normalized, and extrinsics (F, 4, 4) in OpenCV's axes.

    Raises:
        ValueError: no JSON, no frames, or a frame without a usable matrix or lens, or with one that bends lines.
    """
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("the cameras are not readable JSON.") from None
    frames = found.get("frames") if isinstance(found, dict) else found
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise ValueError("the cameras' JSON has no frames; give a transforms.json, or what MF Save Camera wrote.")
    shared = found if isinstance(found, dict) else {}
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    lenses, places = [], []
    for number, frame in enumerate(frames):
        if _MATRIX[OPENCV] in frame:
            place = _matrix(frame[_MATRIX[OPENCV]], number)
        elif _MATRIX[OPENGL] in frame:
            place = flip @ torch.linalg.inv(_matrix(frame[_MATRIX[OPENGL]], number)) @ flip
        else:
            raise ValueError(
                f"camera {number + 1} has neither {_MATRIX[OPENGL]} (OpenGL) nor {_MATRIX[OPENCV]} (OpenCV)."
            )
        places.append(place.float())
        whole = {**shared, **frame}
        _check_straight(whole, number)
        lenses.append(_lens(whole, own_lens, size, number))
    return torch.stack(lenses), torch.stack(places)


def _matrix(values: Any, number: int) -> Tensor:
    try:
        matrix = torch.tensor(values, dtype=torch.float64)
    except (TypeError, ValueError):
        matrix = torch.empty(0)
    if matrix.shape == (3, 4):
        matrix = torch.cat([matrix, torch.eye(4, dtype=torch.float64)[3:]])
    if matrix.shape != (4, 4) or not matrix.isfinite().all():
        raise ValueError(f"the matrix of camera {number + 1} is not 4x4 finite numbers.")
    turn = matrix[:3, :3]
    if not torch.allclose(turn @ turn.T, torch.eye(3, dtype=torch.float64), atol=1e-3) or torch.linalg.det(turn) < 0:
        raise ValueError(
            f"the matrix of camera {number + 1} is no rotation with a place: it scales, shears or mirrors."
        )
    return matrix


def _check_straight(frame: dict[str, Any], number: int) -> None:
    """Raise ValueError for a lens that bends straight lines, which no view here has."""
    model = str(frame.get("camera_model", "PINHOLE"))
    bent = [f"{name} {frame[name]}" for name in _DISTORTION if frame.get(name) not in (None, 0)]
    if model not in _STRAIGHT or frame.get(_FISHEYE):
        bent.insert(0, f"the lens {model if model not in _STRAIGHT else 'fisheye'}")
    if bent:
        raise ValueError(
            f"camera {number + 1} bends straight lines ({', '.join(bent)[:80]}), and views have a pinhole camera: give"
            " the cameras of undistorted pictures, or leave the distortion out."
        )


def _lens(frame: dict[str, Any], own: Tensor, size: tuple[int, int], number: int) -> Tensor:
    """In shares of the picture's sides; what a frame leaves out is square pixels, the middle, the view's own size."""
    view_height, view_width = size
    try:
        shape = (frame["w"], frame["h"]) if "w" in frame and "h" in frame else (view_width, view_height)
        width, height = map(float, shape)
        if "fl_x" in frame or "fl_y" in frame:
            either = frame["fl_x"] if "fl_x" in frame else frame["fl_y"]
            focal_x, focal_y = float(frame.get("fl_x", either)), float(frame.get("fl_y", either))
        elif _ANGLE in frame:
            focal_x = focal_y = 0.5 * width / math.tan(float(frame[_ANGLE]) / 2)
        else:
            return own
        center_x, center_y = float(frame.get("cx", width / 2)), float(frame.get("cy", height / 2))
        # By how much either side is longer than that of a view of the same scale.
        across = max(1.0, width * view_height / (height * view_width))
        down = max(1.0, height * view_width / (width * view_height))
        lens = torch.tensor(
            [
                [across * focal_x / width, 0.0, 0.5 + across * (center_x / width - 0.5)],
                [0.0, down * focal_y / height, 0.5 + down * (center_y / height - 0.5)],
                [0.0, 0.0, 1.0],
            ]
        )
        if not (lens.isfinite().all() and lens[0, 0] > 0 and lens[1, 1] > 0):
            raise ValueError
    except (TypeError, ValueError, ZeroDivisionError):
        raise ValueError(
            f"the lens of camera {number + 1} (fl_x, fl_y or {_ANGLE}, cx, cy, w, h) cannot be used."
        ) from None
    return lens


def write_usd(path: Path, cameras: CameraPath, first_frame: int, frames_per_second: float) -> None:
    """A USD stage with one camera, in a ``.usda`` or ``.usdc`` file.

    Raises:
        ModuleNotFoundError: usd-core is not installed.
    """
    try:
        from pxr import Gf, Usd, UsdGeom
    except ModuleNotFoundError:
        raise ModuleNotFoundError("USD files need the usd-core package: pip install usd-core.") from None
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    stage.SetTimeCodesPerSecond(frames_per_second)
    stage.SetFramesPerSecond(frames_per_second)
    stage.SetStartTimeCode(first_frame)
    stage.SetEndTimeCode(first_frame + len(cameras.lenses) - 1)
    camera = UsdGeom.Camera.Define(stage, "/camera")
    stage.SetDefaultPrim(camera.GetPrim())
    place = camera.MakeMatrixXform()
    camera.CreateHorizontalApertureAttr(_FILM)
    focal, height, right, up = (
        camera.CreateFocalLengthAttr(),
        camera.CreateVerticalApertureAttr(),
        camera.CreateHorizontalApertureOffsetAttr(),
        camera.CreateVerticalApertureOffsetAttr(),
    )
    for index, (matrix, lens) in enumerate(zip(cameras.matrices(), cameras.lenses, strict=True)):
        time = Usd.TimeCode(first_frame + index)
        place.Set(Gf.Matrix4d(matrix.T.tolist()), time)  # USD multiplies rows
        focal.Set(float(lens[0, 0]) * _FILM, time)
        film_height = _FILM * float(lens[0, 0] / lens[1, 1])  # pixels need not be square
        height.Set(film_height, time)
        right.Set((0.5 - float(lens[0, 2])) * _FILM, time)
        up.Set((float(lens[1, 2]) - 0.5) * film_height, time)
    if not stage.Export(str(path)):
        raise OSError(f"{path} could not be written")
