"""Work on a number of things in ComfyUI: with its progress bar, until it is interrupted.

Relies on: ``comfy.utils.ProgressBar``, ``comfy.model_management.throw_exception_if_processing_interrupted`` and
``latent_preview.prepare_callback``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import comfy.model_management
import comfy.utils
import latent_preview
import torch
from PIL import Image
from torch import Tensor

from .depth_pictures import preview

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


def depth_on_node(depth: Tensor) -> tuple[str, Image.Image, int]:
    """A map (h, w), NaN where there is none, as progress bars take a picture to show on the node."""
    known = depth.isfinite().cpu()
    colors = preview(torch.where(known, depth.cpu(), 1.0)[None], known[None])[0]
    return "JPEG", Image.fromarray((255 * colors).round().byte().numpy()), _LARGEST_PREVIEW


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
        self.bar.update_absolute(self.done, self.total, depth_on_node(depth))


class ViewProgress:
    """One bar over the sampling steps of many views and over what follows them, with the sampler's previews.

    Args:
        model: whose steps are shown.
        views: that are made, one after the other.
        steps: of a view.
        after: further steps of the bar, after the last view.
    """

    def __init__(self, model: Any, views: int, steps: int, after: int = 0) -> None:
        self.steps, self.total = steps, views * steps + after
        self._bar = comfy.utils.ProgressBar(self.total)
        self._with_preview = latent_preview.prepare_callback(model, self.total)

    def each(self, things: Sequence[T], steps: int, first: int = 0) -> Iterator[T]:
        """The things one after the other, each of so many steps of the bar, from step ``first`` on.

        Raises:
            InterruptProcessingException: the person pressed the button that stops a run.
        """
        for number, thing in enumerate(things):
            comfy.model_management.throw_exception_if_processing_interrupted()
            yield thing
            self._bar.update_absolute(first + (number + 1) * steps)

    def views(self, things: Sequence[T]) -> Iterator[T]:
        """The views or their cameras, for each of which `sampling` may move the bar further."""
        return self.each(things, self.steps)

    def rest(self, things: Sequence[T]) -> Iterator[T]:
        """What follows the views, one step of the bar each."""
        return self.each(things, 1, self.total - len(things))

    def sampling(self, view: int, done: int = 0) -> Callable[[int, Any, Any, int], None]:
        """A sampler callback for a view of which ``done`` steps are made."""
        first = view * self.steps + done

        def report(step: int, x0: Any, x: Any, _steps: int) -> None:
            self._with_preview(first + step, x0, x, self.total)

        return report
