"""What Load MF Model outputs in place of a CLIP or VAE that a checkpoint does not carry.

Relies on: core's nodes calling a method of what is connected to them, and showing the exception's text.
"""

from __future__ import annotations

from typing import Any


class MissingPartError(AttributeError, ValueError):
    """A part that the checkpoint does not contain was used; an AttributeError so that ``hasattr`` works."""


class MissingPart:
    """Stands in for a CLIP or VAE that a checkpoint does not contain; using it says what to load instead."""

    def __init__(self, message: str) -> None:
        self._message = message

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself asks for, for example to copy an object
            raise AttributeError(name)
        raise MissingPartError(self._message)
