"""Inputs that several nodes share, each written once.

Relies on: the input types of the V3 node API, ``comfy_api.latest.io``.
"""

from __future__ import annotations

from comfy_api.latest import io

from ...mforce_core.placement import FITS, KEEP_ASPECT
from ...mforce_core.release import FOV_DEGREES, LOG2_ALPHA, NANO_SIZE, PATCH_SIZE
from .geometry import DA3Geometry, Geometry

#: Options of ``meaning``, for depth that comes as a picture or a file.
DEPTH, DISPARITY = "depth (far is bright)", "disparity (near is bright)"
#: Options of ``voxel_thinning``.
NO_THINNING, RELATIVE, DEPTH_UNITS = "off", "relative", "depth units"
VOXEL_SIZE = 0.005
#: Options of ``fill``: what a view shows where nothing is known.
BACKGROUND, BLACK = "background", "black"
#: Options of ``numbering``.
FILES, SEQUENCE = "files", "sequence"


def size_input(name: str, verb: str) -> io.Input:
    """The width or height of a canvas, on the grid of tokens."""
    return io.Int.Input(
        name,
        default=NANO_SIZE,
        min=PATCH_SIZE,
        max=8192,
        step=PATCH_SIZE,
        tooltip=f"{name.capitalize()} {verb}, a multiple of 16: 128 for nano, about 512 for the released model.",
    )


def seed_input(tooltip: str) -> io.Input:
    """The seed of noise, which the frontend can change after every run."""
    return io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip=tooltip)


def model_input() -> io.Input:
    """A model of this pack, and no other."""
    return io.Model.Input("model", tooltip="From Load MF Model, with or without LoRA.")


def vae_input() -> io.Input:
    """The VAE of a node that encodes pictures itself."""
    return io.Vae.Input("vae", tooltip="The model's VAE: from Load MF Model for nano, else the FLUX.2 VAE.")


def fit_inputs() -> list[io.Input]:
    """Width, height and fit, for a node that takes pictures or depth maps of any size."""
    return [
        size_input("width", "to work at"),
        size_input("height", "to work at"),
        io.Combo.Input(
            "fit",
            options=list(FITS),
            default=KEEP_ASPECT,
            tooltip=(
                "How the input is brought to width x height. crop: cut the longer side, centered. letterbox: add bars,"
                " which are left out of the depth. stretch: change the proportions. keep size: use the input's own"
                " size, which must be a multiple of 16. keep aspect: keep the input's proportions as closely as"
                " multiples of 16 allow, at about width x height pixels. MF Restore Size undoes each of them."
            ),
        ),
    ]


def tilt_input(tooltip: str) -> io.Input:
    """log2 of the odds of the depth noise level over those of the RGB one."""
    return io.Float.Input("tilt", default=LOG2_ALPHA, min=-10.0, max=10.0, step=0.5, round=0.01, tooltip=tooltip)


def control_strength_input(tooltip: str, *, optional: bool = False) -> io.Input:
    """How strictly a given stream is followed, see `.path_plan.strength_to_tilt`."""
    return io.Float.Input(
        "control_strength", default=1.0, min=0.0, max=1.0, step=0.05, round=0.01, optional=optional, tooltip=tooltip
    )


def geometry_input() -> io.Input:
    return io.MultiType.Input(
        "geometry",
        types=[Geometry, DA3Geometry],
        tooltip="Raw depth from Depth Detokenize, MF Load Depth, Run MoGe Inference or Run Depth Anything 3.",
    )


def geometry_output() -> io.Output:
    return Geometry.Output(
        display_name="geometry",
        tooltip="Raw depth with its mask, camera and picture, for To Point Cloud and core's MoGe nodes.",
    )


def viewer_camera_output() -> io.Output:
    return io.Load3DCamera.Output(
        display_name="camera", tooltip="A view of the whole cloud, for camera_info of Preview Point Cloud."
    )


def picture_of_depth_input() -> io.Input:
    return io.Image.Input(
        "image",
        optional=True,
        tooltip="The picture that belongs to the depth; it gives point clouds and meshes their colors.",
    )


def meaning_inputs() -> list[io.Input]:
    """What the numbers of an IMAGE are, for `.geometry.depth_of_any`."""
    return [
        io.Combo.Input(
            "meaning",
            options=[DEPTH, DISPARITY],
            default=DEPTH,
            tooltip=(
                "What bright means in an IMAGE. Depth: far is bright and black is unknown. Disparity, as in"
                " ControlNet depth maps: near is bright and black is far. Not used for raw depth."
            ),
        ),
        io.Float.Input(
            "far_to_near",
            default=10.0,
            min=1.1,
            max=1000.0,
            step=0.5,
            tooltip=(
                "For disparity only: how many times farther away black is than white. Disparity maps that were"
                " stretched to 0..1 do not contain this."
            ),
        ),
    ]


def picture_to_show_input() -> io.Input:
    return io.Image.Input(
        "image",
        optional=True,
        tooltip="The picture to show. If nothing is connected, the geometry's own. It is resized to the depth.",
    )


def numbering_inputs() -> list[io.Input]:
    """How the files of a batch are numbered, for `.depth_files.output_paths`."""
    return [
        io.Combo.Input(
            "numbering",
            options=[FILES, SEQUENCE],
            default=FILES,
            optional=True,
            advanced=True,
            tooltip=(
                "files: name_00001.exr, counted on from the last. sequence: name_00001.1001.exr and so on, as"
                " compositors read clips; the first number is a new one for each run."
            ),
        ),
        io.Int.Input(
            "first_frame",
            default=1001,
            min=0,
            max=9_999_999,
            optional=True,
            advanced=True,
            tooltip="For numbering as a sequence: the frame number of the first map.",
        ),
    ]


def valid_input() -> io.Input:
    return io.Mask.Input(
        "valid",
        optional=True,
        tooltip="White where the depth is known. If nothing is connected, every positive, finite pixel counts.",
    )


def fov_input() -> io.Input:
    """The camera of depth that has none yet."""
    return io.Float.Input(
        "fov_degrees",
        default=FOV_DEGREES,
        min=1.0,
        max=170.0,
        step=0.5,
        tooltip="Horizontal field of view of the camera, for everything that becomes 3D.",
    )


def other_fov_input(*, advanced: bool | None = None) -> io.Input:
    """A field of view in place of the geometry's own camera."""
    return io.Float.Input(
        "fov_degrees",
        default=0.0,
        min=0.0,
        max=170.0,
        step=0.5,
        advanced=advanced,
        tooltip="Horizontal field of view of the camera. 0: the camera that comes with the geometry.",
    )


def distance_input(name: str, tooltip: str) -> io.Input:
    """A depth in the map's own unit; 0 leaves it to the map."""
    return io.Float.Input(name, default=0.0, min=0.0, max=1e9, step=0.01, round=False, tooltip=tooltip)


def edge_threshold_input(effect: str, all_of_them: str, *, advanced: bool | None = None) -> io.Input:
    return io.Float.Input(
        "edge_threshold",
        default=0.0,
        min=0.0,
        max=100.0,
        step=0.01,
        advanced=advanced,
        tooltip=f"{effect} 0: chosen by the picture's size (0.04 from 512 pixels up). 100 {all_of_them}.",
    )


def fill_input(tooltip: str) -> io.Input:
    return io.Combo.Input("fill", options=[BACKGROUND, BLACK], default=BACKGROUND, tooltip=tooltip)


def edge_softness_input(tooltip: str) -> io.Input:
    """Pixels at jumps of depth that views leave out."""
    return io.Int.Input("edge_softness", default=2, min=0, max=16, advanced=True, tooltip=tooltip)


def thinning_inputs() -> list[io.Input]:
    """The widgets of a node that thins point clouds, see `.point_clouds.thinned`."""
    return [
        io.Combo.Input(
            "voxel_thinning",
            options=[NO_THINNING, RELATIVE, DEPTH_UNITS],
            default=NO_THINNING,
            optional=True,
            advanced=True,
            tooltip=(
                "Keep one mean point per cube of a grid, which evens out the density. relative: voxel_size is a"
                " fraction of the cloud's longest side. depth units: voxel_size is a length in the unit of the depth."
            ),
        ),
        io.Float.Input(
            "voxel_size",
            default=VOXEL_SIZE,
            min=0.00001,
            max=1000.0,
            step=0.001,
            round=0.00001,
            optional=True,
            advanced=True,
            tooltip="Side length of the cubes of voxel_thinning.",
        ),
    ]
