"""The noise levels of a frame that goes on from depth which is there already."""

from __future__ import annotations

from ..model.config import Schedule
from ..sampling.path_spec import PathSpec


def path_from(level: float, steps: int, schedule: Schedule) -> tuple[PathSpec, int]:
    """Image to depth from a noise level on, in as many steps as the whole way of ``steps`` has below it."""
    if level >= 1:
        return PathSpec("i2d"), steps
    below = sum(one < level for one in PathSpec("i2d").build(steps, schedule).depth)
    return PathSpec("i2d", start_depth=level), below
