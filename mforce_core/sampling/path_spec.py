"""Paths through the square of noise levels from a few numbers that a file, a widget or a command line can hold.

>>> PathSpec("tilt", log2_alpha=5).build(steps=50)  # the release's joint path
>>> PathSpec.parse("d2i log2_alpha=-8").build(steps=50)  # a depth map that is followed, but not to the pixel
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from ..model.config import Schedule
from ..release import LOG2_ALPHA, MAX_STEPS, Mode
from .curves import Curve, Point, clipped, even_places, hurried, place_of, polyline
from .path import NoisePath
from .schedule import released_levels, shift, tilt

_SPACING = ("mu", "sigma")
_DEPTH_SPACING = ("depth_mu", "depth_sigma")
_STARTS = ("start_rgb", "start_depth")

#: Kinds of paths and the parameters of each.
KINDS: Mapping[str, tuple[str, ...]] = {
    "tilt": ("log2_alpha", *_SPACING, *_STARTS, "restarts"),
    "shifts": (*_SPACING, *_DEPTH_SPACING, *_STARTS, "restarts"),
    "i2d": ("log2_alpha", *_DEPTH_SPACING, "start_depth", "restarts"),
    "d2i": ("log2_alpha", *_SPACING, "start_rgb", "restarts"),
    "finish": ("rgb_by", "depth_by", *_SPACING, *_DEPTH_SPACING, *_STARTS, "restarts"),
    "points": ("points", *_SPACING, *_STARTS, "restarts"),
    "levels": ("points",),
}

#: (after, back_to, times): having gone the share ``after`` of the steps, return to the noise levels of the share
#: ``back_to`` by adding noise, and take the steps between them again; so many times.
Restart = tuple[float, float, int]


@dataclass(frozen=True)
class PathSpec:
    """A kind of path and its parameters; those of other kinds stay None.

    The path is run through from u = 1 to u = 0 in even steps, and ``shift(u, mu, sigma)`` turns u into a noise level:
    mu above 0 puts more steps at high noise, sigma below 1 more in the middle. What is None is the model's own.

    - ``tilt``: depth at ``tilt(t_rgb, log2_alpha)``; the release's joint path.
    - ``shifts``: each stream on its own shift.
    - ``i2d``: depth from 1 to 0 with RGB clean, or, with ``log2_alpha``, RGB at ``tilt(t_depth, log2_alpha)``.
    - ``d2i``: RGB from 1 to 0 with depth clean, or, with ``log2_alpha``, depth at ``tilt(t_rgb, log2_alpha)``.
    - ``finish``: each stream on its own shift, clean after the share ``rgb_by`` or ``depth_by`` of the steps.
    - ``points``: straight lines between points (t_rgb, t_depth), none of which may rise, spaced along their length.
    - ``levels``: the points are the levels themselves, one more than there are steps; they may rise.

    Attributes:
        log2_alpha: for ``tilt`` 5 by default. A stream that is given and re-noised along ``i2d`` or ``d2i`` is followed
            strictly at -14 and loosely at -5 (Modality Forcing, arXiv 2606.13676, figure 8).
        start_rgb, start_depth: noise at the start, where a stream starts from content. The path is clipped to this
            corner of the square: a stream waits at its start until the path has come down to it, and the steps are
            spaced along the length of what is left of the path.
        restarts: see :data:`Restart`; in the order of the path (Xu et al., arXiv 2306.14878).

    Raises:
        ValueError: an unknown kind, a parameter of another kind, or an impossible value.
    """

    kind: str = "tilt"
    log2_alpha: float | None = None
    mu: float | None = None
    sigma: float | None = None
    depth_mu: float | None = None
    depth_sigma: float | None = None
    rgb_by: float | None = None
    depth_by: float | None = None
    points: tuple[Point, ...] | None = None
    start_rgb: float | None = None
    start_depth: float | None = None
    restarts: tuple[Restart, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a path is of the kind {', '.join(KINDS)}, got {self.kind!r}")
        foreign = sorted(set(self._given()) - set(KINDS[self.kind]))
        if foreign:
            raise ValueError(f"a path of the kind {self.kind} has no {', '.join(foreign)}")
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and low <= value <= high):
                raise ValueError(f"{name} of a path must be a number from {low:g} to {high:g}, got {value!r}")
        if self.points is not None:
            object.__setattr__(self, "points", _checked_points(self.points, may_rise=self.kind == "levels"))
        elif self.kind in ("points", "levels"):
            raise ValueError(f"a path of the kind {self.kind} needs points")
        if self.restarts is not None:
            object.__setattr__(self, "restarts", _checked_restarts(self.restarts))

    def build(self, steps: int, schedule: Schedule | None = None) -> NoisePath:
        """The path in so many steps, those of restarts beside them.

        Args:
            steps: at least 1; for ``levels`` their count less one.
            schedule: the model's shift, where the path has none of its own; the release's by default.

        Raises:
            ValueError: a number of steps that does not fit.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if self.kind == "levels":
            assert self.points is not None
            if len(self.points) != steps + 1:
                raise ValueError(f"{len(self.points)} levels make {len(self.points) - 1} steps, got steps {steps}")
            return NoisePath([rgb for rgb, _ in self.points], [depth for _, depth in self.points])
        schedule = self._schedule(schedule or Schedule())
        curve, spacing = self._curve(schedule), (schedule.rgb_shift_mu, schedule.rgb_shift_sigma)
        starts = self.start_rgb, self.start_depth
        if starts == (None, None):
            rgb, depth = curve(even_places(1.0, steps))
        elif self.kind == "i2d" or self.kind == "d2i":
            main = 1 if self.kind == "i2d" else 0
            rgb, depth = curve(even_places(place_of(curve, main, _or(starts[main], 1.0)), steps))
        else:
            rgb, depth = clipped(curve, (_or(starts[0], 1.0), _or(starts[1], 1.0)), spacing)(even_places(1.0, steps))
        order = _order(steps, self.restarts or ())
        return NoisePath(rgb[order], depth[order])

    def _schedule(self, schedule: Schedule) -> Schedule:
        return Schedule(
            rgb_shift_mu=_or(self.mu, schedule.rgb_shift_mu),
            rgb_shift_sigma=_or(self.sigma, schedule.rgb_shift_sigma),
            depth_shift_mu=_or(self.depth_mu, schedule.depth_shift_mu),
            depth_shift_sigma=_or(self.depth_sigma, schedule.depth_shift_sigma),
        )

    def _curve(self, schedule: Schedule) -> Curve:
        """Neither of its levels rises as u falls."""
        rgb_shift = schedule.rgb_shift_mu, schedule.rgb_shift_sigma
        depth_shift = schedule.depth_shift_mu, schedule.depth_shift_sigma
        if self.kind == "tilt":
            log2_alpha = _or(self.log2_alpha, LOG2_ALPHA)
            return lambda u: released_levels(u, log2_alpha=log2_alpha, schedule=schedule)
        if self.kind == "d2i" and self.log2_alpha is not None:
            log2_alpha = self.log2_alpha
            return lambda u: (shift(u, *rgb_shift), tilt(shift(u, *rgb_shift), log2_alpha))
        if self.kind == "i2d" and self.log2_alpha is not None:
            log2_alpha = self.log2_alpha
            return lambda u: (tilt(shift(u, *depth_shift), log2_alpha), shift(u, *depth_shift))
        if self.kind == "i2d" or self.kind == "d2i":
            mode: Mode = "i2d" if self.kind == "i2d" else "d2i"
            return lambda u: released_levels(u, mode=mode, schedule=schedule)
        if self.kind == "points":
            assert self.points is not None
            return polyline(self.points, rgb_shift)
        rgb_by, depth_by = _or(self.rgb_by, 1.0), _or(self.depth_by, 1.0)  # of `shifts` all the way
        return lambda u: (shift(hurried(u, rgb_by), *rgb_shift), shift(hurried(u, depth_by), *depth_shift))

    def _given(self) -> dict[str, Any]:
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name != "kind" and getattr(self, field.name) is not None
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; parameters that are None are left out."""
        return {"kind": self.kind} | {
            name: [list(part) for part in value] if isinstance(value, tuple) else value
            for name, value in self._given().items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PathSpec:
        """From :meth:`to_dict`, or JSON that a person wrote.

        Raises:
            ValueError: an unknown parameter or an impossible value.
        """
        if not isinstance(values, Mapping) or not isinstance(values.get("kind"), str):
            raise ValueError(f"a path needs a kind: {', '.join(KINDS)}")
        unknown = sorted(str(name)[:40] for name in set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"a path has no {', '.join(unknown[:5])}")
        return cls(**values)

    @classmethod
    def parse(cls, text: str) -> PathSpec:
        """From a line of text: JSON, or a kind with parameters and points.

        ``tilt log2_alpha=5``, ``finish rgb_by=0.6``, ``points 1,1 0.3,0.9 0,0``, ``d2i log2_alpha=-8 start_rgb=0.7``,
        ``tilt restart=0.8,0.5,2``.

        Raises:
            ValueError: what cannot be read.
        """
        if text.lstrip().startswith("{"):
            try:
                return cls.from_dict(json.loads(text))
            except (json.JSONDecodeError, RecursionError):
                raise ValueError(f"the path {text[:60]!r} is not readable JSON") from None
        kind, *words = text.split() or [""]
        values: dict[str, Any] = {"kind": kind}
        for word in words:
            name, equals, number = word.partition("=")
            if not equals:
                values.setdefault("points", []).append(_numbers(word))
            elif name == "restart":
                values.setdefault("restarts", []).append(_numbers(number))
            else:
                (values[name],) = _numbers(number, count=1)
        return cls.from_dict(values)


_LIMITS = {
    "log2_alpha": (-30, 30),
    "mu": (-20, 20),
    "sigma": (0.05, 20),
    "depth_mu": (-20, 20),
    "depth_sigma": (0.05, 20),
    "rgb_by": (0.01, 1),
    "depth_by": (0.01, 1),
    "start_rgb": (0, 1),
    "start_depth": (0, 1),
}


def _order(steps: int, restarts: Sequence[Restart]) -> list[int]:
    """Numbers of the levels in the order in which they are passed."""
    turns = [(round(after * steps), round(back_to * steps), times) for after, back_to, times in restarts]
    if steps + sum((end - begin + 1) * times for end, begin, times in turns) > MAX_STEPS:
        raise ValueError(f"a path has at most {MAX_STEPS:,} steps, restarts included")
    order, reached = [0], 0
    for end, begin, times in turns:
        order += [*range(reached + 1, end + 1), *list(range(begin, end + 1)) * times]
        reached = end
    return [*order, *range(reached + 1, steps + 1)]


def _checked_points(points: Any, *, may_rise: bool) -> tuple[Point, ...]:
    pairs = isinstance(points, (list, tuple)) and all(
        isinstance(point, (list, tuple)) and len(point) == 2 and all(_is_number(value) for value in point)
        for point in points
    )
    if not pairs or not 2 <= len(points) <= MAX_STEPS:
        raise ValueError(f"points of a path must be two or more pairs of RGB and depth levels, got {str(points)[:60]}")
    checked = tuple((float(rgb), float(depth)) for rgb, depth in points)
    if not all(0 <= level <= 1 for point in checked for level in point):
        raise ValueError("points of a path must lie in 0..1")
    if not may_rise and any(after[0] > now[0] or after[1] > now[1] for now, after in pairwise(checked)):
        raise ValueError("points of a path may not rise: order them from noise (1, 1) to clean (0, 0)")
    return checked


def _checked_restarts(restarts: Any) -> tuple[Restart, ...]:
    checked: list[Restart] = []
    for restart in restarts if isinstance(restarts, (list, tuple)) else [restarts]:
        if (
            not isinstance(restart, (list, tuple))
            or len(restart) != 3
            or not all(_is_number(value) for value in restart)
            or not 0 <= restart[1] < restart[0] <= 1
            or not 1 <= restart[2] <= 1000
            or restart[2] != int(restart[2])
        ):
            raise ValueError(f"a restart is (after, back to, times) such as (0.8, 0.5, 2), got {str(restart)[:60]}")
        if checked and restart[0] < checked[-1][0]:
            raise ValueError("restarts of a path must be in its order")
        checked.append((float(restart[0]), float(restart[1]), int(restart[2])))
    return tuple(checked)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e6


def _numbers(text: str, count: int | None = None) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or (count is not None and len(numbers) != count):
        raise ValueError(f"{text[:40]!r} in a path is not {'a number' if count == 1 else 'numbers with commas'}")
    return numbers


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
