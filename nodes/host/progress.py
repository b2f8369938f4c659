"""Work on a number of things in ComfyUI: with its progress bar, until it is interrupted.

Relies on: ``comfy.utils.ProgressBar`` and ``comfy.model_management.throw_exception_if_processing_interrupted``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import comfy.model_management
import comfy.utils
from PIL import Image
from torch import Tensor

from ...mforce_core.depth.preview import depth_preview

#: Longest side of a preview in pixels.
_LARGEST_PREVIEW = 512

T = TypeVar("T")
#: Takes the share of a thing that is done.
Advance = Callable[[float], None]
_PARTS = 100  # of a thing, in steps of the progress bar


def with_progress(things: Sequence[T]) -> Iterator[T]:
    """The things one after the other; the bar moves on when the next one is asked for.

    Raises:
        InterruptProcessingException: the person pressed the button that stops a run.
    """
    bar = comfy.utils.ProgressBar(len(things))
    for thing in things:
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield thing
        bar.update(1)


def with_inner_progress(things: Sequence[T]) -> Iterator[tuple[T, Advance]]:
    """The same, each with a function that takes the share of the thing that is done.

    Raises:
        InterruptProcessingException: here, and by that function.
    """
    bar = comfy.utils.ProgressBar(len(things) * _PARTS)

    def advance_from(number: int) -> Advance:
        def advance(share: float) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(int((number + share) * _PARTS))

        return advance

    for number, thing in enumerate(things):
        advance = advance_from(number)
        advance(0.0)
        yield thing, advance
        bar.update_absolute((number + 1) * _PARTS)


class TileProgress:
    """The bar of work on many tiles, which shows the depth of the tile that was made last.

    Args:
        total: tiles.
    """

    def __init__(self, total: int) -> None:
        self.bar, self.total, self.done = comfy.utils.ProgressBar(total), total, 0

    def report(self, depth: Tensor) -> None:
        """Note that a map (h, w) is made.

        Raises:
            InterruptProcessingException: the person pressed the button that stops a run.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.done += 1
        colors = Image.fromarray(depth_preview(depth[None])[0])
        self.bar.update_absolute(self.done, self.total, ("JPEG", colors, _LARGEST_PREVIEW))
