"""The picture or depth map that a command is given, brought onto the model's canvas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..mforce_core.depth.files import read_depth
from ..mforce_core.picture.placement import CROP, LETTERBOX, Placement, place
from .images import read_picture
from .settings import Settings

#: The ways of --fit.
_FITS = {"pad": LETTERBOX, "crop": CROP}


@dataclass(frozen=True)
class Given:
    """The clean stream of i2d or d2i on the model's canvas, and how it got there."""

    rgb: np.ndarray | None = None
    depth: np.ndarray | None = None
    placement: Placement | None = None
    notes: tuple[str, ...] = ()


def read_given(settings: Settings) -> Given:
    """Read the input file of the settings, whose size is known.

    Raises:
        ValueError: the file cannot be used; the sentence says why.
    """
    if settings.input is None:
        return Given()
    path = Path(settings.input)
    canvas, fit = settings.canvas[::-1], _FITS[settings.fit]
    if settings.mode == "i2d":
        picture = read_picture(path)
        placement = place(picture.image.size[::-1], canvas, fit)
        return Given(
            rgb=placement.place_photo(picture.image),
            placement=placement,
            notes=_notes(picture.notes, placement, path),
        )
    mask = None if settings.mask is None else Path(settings.mask)
    measured = read_depth(path, disparity=settings.disparity or None, mask=mask)
    rows, columns = measured.depth.shape
    placement = place((rows, columns), canvas, fit)
    depth = placement.place_depth(torch.from_numpy(measured.depth)[None])[0].numpy()
    if not np.isfinite(depth).any():
        raise ValueError(f"{path} has no measured pixel left after --fit crop: use --fit pad.")
    return Given(depth=depth, placement=placement, notes=_notes(measured.notes, placement, path))


def _notes(notes: tuple[str, ...], placement: Placement, path: Path) -> tuple[str, ...]:
    described = describe(path.name, placement)
    return notes if described is None else (*notes, described)


def describe(name: str, placement: Placement) -> str | None:
    """A sentence on what was done to the input, or None where nothing was."""
    if placement.source == placement.canvas:
        return None
    size = "{1}x{0}".format  # width first, as people say it
    parts = [f"{name} is {size(*placement.source)}"]
    if placement.crop != (0, 0, *placement.source):
        parts.append(f"cropped to {size(*placement.crop[2:])}")
    parts.append(f"resized to {size(*placement.size)}")
    if placement.size != placement.canvas:
        parts.append(f"letterboxed to {size(*placement.canvas)} (--fit crop cuts instead)")
    return ", ".join(parts) + "."
