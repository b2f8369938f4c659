"""Draw the paths through the unit square that docs/concepts/tilt.md and paths.md show, from the code that samples.

Usage, in the root of the repository: python docs/drawings.py
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mforce.evaluation.sampling_study import PATHS
from mforce.mforce_core import PathSpec, rollout_times

IMAGES = Path(__file__).resolve().parent / "images"

_BLUE, _LIGHT_BLUE, _ORANGE, _GREEN, _GRAY = "#1f77b4", "#8fbbda", "#ff7f0e", "#2ca02c", "#555"

#: Tilts that are drawn, the default first.
_TILTS = (5.0, 2.0, 0.0, -2.0, -5.0)

#: Noise levels of the image and of the depth, one for every step.
Levels = tuple[Sequence[float], Sequence[float]]


class Square:
    """The unit square of noise levels on the page: noise alone at its lower left, a clean pair at its upper right."""

    def __init__(self, left: float, top: float, side: float) -> None:
        self.left, self.top, self.side = left, top, side

    def places(self, levels: Levels) -> Iterator[tuple[float, float]]:
        """Pixels of pairs of noise levels."""
        for rgb, depth in zip(*levels, strict=True):
            yield self.left + (1 - rgb) * self.side, self.top + depth * self.side

    def frame(self, ticks: Sequence[float]) -> Iterator[str]:
        """The square with numbers at its sides, and what they count."""
        left, top, side = self.left, self.top, self.side
        yield f'<rect x="{left}" y="{top}" width="{side}" height="{side}" fill="none" stroke="{_GRAY}"/>'
        for tick, (x, y) in zip(ticks, self.places((ticks, ticks)), strict=True):
            yield _text(x, top + side + 15, f"{tick:g}", _GRAY, "middle")
            yield _text(left - 6, y + 4, f"{tick:g}", _GRAY, "end")
        yield _text(left + side / 2, top + side + 32, "noise level of the image", _GRAY, "middle")
        yield _text(left - 32, top + side / 2, "noise level of the depth", _GRAY, "middle", upward=True)

    def curve(self, levels: Levels, color: str, width: float) -> str:
        """A line through pairs of noise levels, without those that are nearer than two pixels to the one before."""
        first, *between, last = self.places(levels)
        kept = [first]
        for place in between:
            if math.dist(place, kept[-1]) >= 2:
                kept.append(place)
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (*kept, last))
        return f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="{width:g}"/>'

    def dots(self, levels: Levels, color: str) -> Iterator[str]:
        """A dot for every pair of noise levels."""
        for x, y in self.places(levels):
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>'


def unit_square() -> str:
    """The noise levels that each task passes through."""
    square = Square(50, 12, 340)
    parts = list(square.frame((1, 0.75, 0.5, 0.25, 0)))
    legend = []
    for tilt in _TILTS:
        default = tilt == _TILTS[0]
        line = (_BLUE, 3.0) if default else (_LIGHT_BLUE, 1.5)
        levels = _levels(2000, log2_alpha=tilt)
        parts.append(square.curve(levels, *line))
        x, y = min(square.places(levels), key=lambda place: abs(place[0] - square.left - place[1] + square.top))
        parts.append(_text(x + 5, y + 13, f"{tilt:g}"))
        legend.append((f"joint, tilt {tilt:g}" + " (default)" * default, *line))
    for label, mode, color in (("image to depth", "i2d", _GREEN), ("depth to image", "d2i", _ORANGE)):
        parts.append(square.curve(_levels(1, mode=mode), color, 4.0))
        legend.append((label, color, 4.0))
    for row, (label, color, width) in enumerate(legend):
        y = 110 + 22 * row
        parts.append(f'<path d="M415 {y}h26" stroke="{color}" stroke-width="{width:g}"/>')
        parts.append(_text(450, y + 4, label))
    return _page(590, 400, parts)


def six_paths() -> str:
    """The joint paths of the study of sampling, a dot for every step."""
    side, parts = 190, []
    for number, (name, way) in enumerate(PATHS.items()):
        row, column = divmod(number, 3)
        square = Square(48 + column * (side + 70), 28 + row * (side + 76), side)
        path = PathSpec.parse(way.path).build(way.steps)
        parts.append(_text(square.left + side / 2, square.top - 10, name, "#000", "middle"))
        parts += [*square.frame((1, 0.5, 0)), square.curve((path.rgb, path.depth), _BLUE, 1.5)]
        parts += square.dots((path.rgb, path.depth), _BLUE)
    return _page(778, 526, parts)


def _levels(steps: int, **path: Any) -> Levels:
    rgb, depth = rollout_times(steps, **path)
    return rgb.tolist(), depth.tolist()


def _text(x: float, y: float, words: str, color: str = "#000", anchor: str = "start", *, upward: bool = False) -> str:
    turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if upward else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{color}" text-anchor="{anchor}"{turned}>{words}</text>'


def _page(width: int, height: int, parts: Iterable[str]) -> str:
    """On white, since pages may be dark."""
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>"]) + "\n"


#: Name of the file -> its drawing.
DRAWINGS = {"unit_square.svg": unit_square, "six_paths.svg": six_paths}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (IMAGES / name).write_text(draw(), encoding="utf-8", newline="\n")
