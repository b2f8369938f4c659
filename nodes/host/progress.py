"""Work on a number of things in ComfyUI: with its progress bar, until it is interrupted.

Relies on: ``comfy.utils.ProgressBar`` and ``comfy.model_management.throw_exception_if_processing_interrupted``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import comfy.model_management
import comfy.utils

T = TypeVar("T")


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
