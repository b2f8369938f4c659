"""Bring a picture of any size onto the model's canvas, and cut the result back to the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .settings import check_grid


@dataclass(frozen=True)
class Fit:
    """Where a picture lands. Boxes are (left, top, right, bottom), sizes (width, height), in pixels.

    ``box`` is the part of the source that is used, ``content`` its place on the canvas.
    """

    source: tuple[int, int]
    box: tuple[int, int, int, int]
    canvas: tuple[int, int]
    content: tuple[int, int, int, int]

    @property
    def content_size(self) -> tuple[int, int]:
        left, top, right, bottom = self.content
        return right - left, bottom - top

    @property
    def margins(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Canvas pixels ((above, below), (left, right)) of the content, as ``np.pad`` takes them."""
        left, top, right, bottom = self.content
        return (top, self.canvas[1] - bottom), (left, self.canvas[0] - right)

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The content of a canvas-sized array (H, W, ...)."""
        left, top, right, bottom = self.content
        return array[top:bottom, left:right]

    def describe(self, name: str) -> str | None:
        """A sentence on what was done to the picture, or None where nothing was."""
        if self.source == self.canvas:
            return None
        size = "{}x{}".format
        parts = [f"{name} is {size(*self.source)}"]
        if self.box != (0, 0, *self.source):
            parts.append(f"cropped to {size(self.box[2] - self.box[0], self.box[3] - self.box[1])}")
        parts.append(f"resized to {size(*self.content_size)}")
        if self.content_size != self.canvas:
            parts.append(f"letterboxed to {size(*self.canvas)} (--fit crop cuts instead)")
        return ", ".join(parts) + "."


def plan_fit(source: tuple[int, int], canvas: tuple[int, int], how: str) -> Fit:
    """Fit a source (width, height) on a canvas: "pad" letterboxes the whole of it, "crop" cuts its middle."""
    check_grid(*canvas)
    width, height = source
    scales = canvas[0] / width, canvas[1] / height
    if how == "pad":
        content = tuple(max(1, min(c, round(s * min(scales)))) for s, c in zip(source, canvas, strict=True))
        left, top = (canvas[0] - content[0]) // 2, (canvas[1] - content[1]) // 2
        return Fit(source, (0, 0, width, height), canvas, (left, top, left + content[0], top + content[1]))
    used = tuple(max(1, min(s, round(c / max(scales)))) for s, c in zip(source, canvas, strict=True))
    left, top = (width - used[0]) // 2, (height - used[1]) // 2
    return Fit(source, (left, top, left + used[0], top + used[1]), canvas, (0, 0, *canvas))
