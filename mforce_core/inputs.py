"""The picture or depth map that a run is given, brought onto the model's canvas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .depth.files import read_depth
from .picture.reading import Picture, as_rgb, read_picture
from .placement import CROP, LETTERBOX, Placement, place
from .settings import Settings

#: A picture as a file, as Pillow's, or as (H, W, 3) uint8.
PictureInput = str | Path | Image.Image | np.ndarray
#: Depth as a file or as (H, W) numbers; zero, negative and non-finite ones are missing.
DepthInput = str | Path | np.ndarray

#: The values of the setting ``fit``.
_FITS = {"pad": LETTERBOX, "crop": CROP}


@dataclass(frozen=True)
class Given:
    """What a run starts from on the model's canvas, and how it got there.

    Attributes:
        rgb: (H, W, 3) uint8: the picture of i2d; of another mode what its picture starts from.
        depth: (H, W) float32 with NaN where missing: the depth of d2i; of another mode what its depth starts from.
        original: the picture at its own size, (H, W, 3) uint8, where the result is to have that.
        placement: of the input on the canvas; None where there is none.
        notes: sentences about what was done to the input.
    """

    rgb: np.ndarray | None = None
    depth: np.ndarray | None = None
    original: np.ndarray | None = None
    placement: Placement | None = None
    notes: tuple[str, ...] = ()


def read_given(settings: Settings) -> Given:
    """Read the input files of settings whose size is known.

    Raises:
        ValueError: a file cannot be used; the sentence says why.
    """
    given = Given()
    if settings.mode != "joint":
        if settings.input is None:
            raise ValueError(
                f"The mode {settings.mode} needs an input file, and the settings name none: what was made from an "
                "array in Python is made again there."
            )
        given = (take_picture if settings.mode == "i2d" else take_depth)(Path(settings.input), settings)
    return with_starts(given, settings, settings.start_image, settings.start_depth)


def with_starts(given: Given, settings: Settings, picture: PictureInput | None, depth: DepthInput | None) -> Given:
    """What a run is given, and the content that its other streams start from.

    Raises:
        ValueError: one of them cannot be used, is missing, or covers another part of the canvas.
    """
    for name, content in (("image", picture), ("depth", depth)):
        if (content is None) != (getattr(settings, f"{name}_strength") is None):
            raise ValueError(f"`start_{name}` and `{name}_strength` go together: one of them is missing.")
    starts = [] if picture is None else [take_picture(picture, settings)]
    starts += [] if depth is None else [take_depth(depth, settings)]
    for start in starts:
        before, after = given.placement, start.placement
        if before is not None and after is not None and before.content != after.content:
            raise ValueError("What is given and what is started from have two shapes: cut one, or use `fit` crop.")
        given = Given(
            start.rgb if given.rgb is None else given.rgb,
            start.depth if given.depth is None else given.depth,
            given.original,
            before or after,
            (*given.notes, *start.notes),
        )
    return given


def take_picture(picture: PictureInput, settings: Settings) -> Given:
    """The picture that i2d is given, on the canvas of the settings.

    Raises:
        ValueError: it cannot be read, or is an array of another kind.
    """
    name = "The picture"
    if isinstance(picture, (str, Path)):
        name, found = Path(picture).name, read_picture(Path(picture))
    elif isinstance(picture, Image.Image):
        found = as_rgb(picture, name)
    elif picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3:
        found = Picture(Image.fromarray(picture), ())
    else:
        raise ValueError(f"A picture must be (H, W, 3) uint8, got {picture.shape} {picture.dtype}.")
    columns, rows = found.image.size
    placement = place((rows, columns), settings.canvas[::-1], _FITS[settings.fit])
    pixels = placement.place_photo(found.image)
    original = np.array(found.image) if settings.original_size else None
    return Given(rgb=pixels, original=original, placement=placement, notes=_notes(found.notes, placement, name))


def take_depth(depth: DepthInput, settings: Settings) -> Given:
    """The depth map that d2i is given, on the canvas of the settings, with their mask.

    Raises:
        ValueError: it cannot be read, is an array of another shape, or has no measured pixel.
    """
    name = "The depth map"
    notes: tuple[str, ...] = ()
    if isinstance(depth, (str, Path)):
        name, mask = Path(depth).name, None if settings.mask is None else Path(settings.mask)
        measured = read_depth(
            Path(depth), disparity=settings.disparity or None, mask=mask, far_to_near=settings.far_to_near
        )
        values, notes = torch.from_numpy(measured.depth), measured.notes
    else:
        values = torch.as_tensor(np.asarray(depth), dtype=torch.float32)
        if values.ndim != 2:
            raise ValueError(f"A depth map must be (H, W), got {tuple(values.shape)}.")
        values = torch.where(values.isfinite() & (values > 0), values, torch.nan)
    rows, columns = values.shape
    placement = place((rows, columns), settings.canvas[::-1], _FITS[settings.fit])
    placed = placement.place_depth(values[None])[0].numpy()
    if not np.isfinite(placed).any():
        raise ValueError(f"{name} has no measured pixel left after `fit` crop: use `fit` pad.")
    return Given(depth=placed, placement=placement, notes=_notes(notes, placement, name))


def _notes(notes: tuple[str, ...], placement: Placement, name: str) -> tuple[str, ...]:
    described = describe(name, placement)
    return notes if described is None else (*notes, described)


def describe(name: str, placement: Placement) -> str | None:
    """A sentence on what was done to the input, or None where nothing was."""
    if placement.source == placement.canvas:
        return None
    size = "{1}x{0}".format  # width first, as people say it
    parts = [f"{name} is {size(*placement.source)}"]
    if placement.crop != (0, 0, *placement.source):
        parts.append(f"cropped to {size(*placement.crop[2:])}")
    if placement.size != placement.crop[2:]:
        parts.append(f"resized to {size(*placement.size)}")
    if placement.size != placement.canvas:
        parts.append(f"letterboxed to {size(*placement.canvas)} (`fit` crop cuts instead)")
    return ", ".join(parts) + "."
