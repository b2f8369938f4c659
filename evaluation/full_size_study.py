"""How depth at full size compares with enlarged depth, on scenes that can be rendered at any size.

Every scene is rendered at a multiple of the model's size. The model sees it made smaller, once; its map is enlarged in
several ways, and refined in tiles. Measured against the exact depth, after scaling by the median:

- ``absrel``: over all pixels; ``band``: in the four pixels around every edge of the exact depth.
- ``seam``: steps of the error across the lines on which tiles begin and end, over steps a token before these lines,
  both away from edges; 1 or less where nothing shows that there are tiles. Taken of every second tile: there its
  neighbor counts most, which has both lines at the same place of its tokens, half a token from its middle.
- ``token_seam``: steps of the error across the borders of all tiles' tokens over steps inside of them.
- ``..._ratio``: over the same of the enlarged map, which is what image to depth gives without ``full_size``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..mforce_core.depth.resampling import enlarge_depth
from ..mforce_core.full_size.refine import Tiling, refine_depth, shrink
from ..mforce_core.full_size.snapping import snap_edges
from ..mforce_core.full_size.tile_model import TileModel
from ..mforce_core.full_size.tiles import plan_tiles
from ..mforce_core.picture.color import to_bytes
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.release import PATCH_SIZE
from ..mforce_core.settings import DEPTH_STEPS, TILE_OVERLAP, TILE_STRENGTH
from ..scenes import render, sample_layouts
from . import intervals
from .metrics import abs_rel, align_median, edge_band

#: The way that the others are held against.
ENLARGED = "enlarged"
#: Strengths that a sweep compares with the default.
STRENGTHS = (0.05, 0.3, 0.6, 1.0)

#: From the picture (H, W, 3) uint8 and the model's map (h, w) to a map (H, W).
Enlarge = Callable[[Any, Tensor], Tensor]
Row = dict[str, Any]


def study_full_size(
    pipeline: Pipeline, factor: int, count: int, seed: int, *, sweep: bool = False, say: Callable[[str], None]
) -> Iterator[Row]:
    """Measure every way on the first scenes of a sequence.

    Args:
        factor: how many times larger the pictures are than what the model works at, on a side.
        count: scenes.
        seed: of scenes and noise.
        sweep: also compare strengths.
        say: told how far it is.

    Yields:
        A row for every way, with intervals over the scenes.
    """
    side = pipeline.settings.canvas[0]
    ways = ways_of(pipeline, factor, side, seed, sweep=sweep)
    measured: dict[str, list[Tensor]] = {name: [] for name in ways}
    for number in range(count):
        image, exact = render(sample_layouts(1, seed, number), factor * side)
        picture = to_bytes(image[0].movedim(0, -1)).numpy()
        small = shrink(picture, (side, side))
        coarse = pipeline.i2d(small, steps=DEPTH_STEPS, seed=seed + number, original_size=False).depth
        for name, way in ways.items():
            begin = time.perf_counter()
            made = way(picture, torch.from_numpy(coarse))
            seconds = time.perf_counter() - begin
            measured[name].append(_measures(made[None], exact, seconds, side))
        say(f"Scene {number + 1} of {count} at {factor} times the size is measured.")
    reference = torch.stack(measured[ENLARGED])
    for name in ways:
        yield {"name": name, "factor": factor, "scenes": count} | _row(torch.stack(measured[name]), reference)


def ways_of(pipeline: Pipeline, factor: int, side: int, seed: int, *, sweep: bool) -> dict[str, Enlarge]:
    """Baselines, the picture's edges alone, and tiles with and without them."""
    size = (factor * side, factor * side)

    def tiles(strength: float, snap: bool, picture: Any, coarse: Tensor) -> Tensor:
        networks = pipeline.networks("", pipeline.settings.guidance)
        model = TileModel(networks, strength=strength, steps=DEPTH_STEPS, solver="euler", seed=seed)
        tiling = Tiling((side, side), TILE_OVERLAP, together=4, snap=snap)
        return torch.from_numpy(refine_depth(picture, coarse, model, tiling))

    def guided(picture: Any, coarse: Tensor) -> Tensor:
        colors = torch.from_numpy(picture).movedim(-1, 0) / 255
        return snap_edges(enlarge_depth(coarse[None], size)[0], colors, 2 * factor)

    ways: dict[str, Enlarge] = {
        ENLARGED: lambda _, coarse: enlarge_depth(coarse[None], size)[0],
        "nearest": partial(_interpolated, size, "nearest-exact"),
        "bicubic": partial(_interpolated, size, "bicubic"),
        "enlarged, guided by the picture": guided,
        f"tiles from {TILE_STRENGTH:g}, not guided": partial(tiles, TILE_STRENGTH, False),
        f"tiles from {TILE_STRENGTH:g}": partial(tiles, TILE_STRENGTH, True),
    }
    if sweep:
        ways |= {f"tiles from {strength:g}": partial(tiles, strength, True) for strength in STRENGTHS}
    return ways


def _interpolated(size: tuple[int, int], mode: str, _: Any, coarse: Tensor) -> Tensor:
    return interpolate(coarse[None, None], size, mode=mode)[0, 0]


def _measures(made: Tensor, exact: Tensor, seconds: float, side: int) -> Tensor:
    """absrel, band, seconds, and steps across borders of tiles, a token before them, across those of all tokens, and
    elsewhere; (7,)."""
    aligned, band = align_median(made, exact), edge_band(exact)
    error = (aligned.log() - exact.log()).masked_fill(band, torch.nan)
    borders = tile_borders(exact.shape[-1], side)
    of_all = torch.arange(1, exact.shape[-1]) % (PATCH_SIZE // 2) == 0
    steps = [mean_step(error, lines) for lines in (borders, borders.roll(-PATCH_SIZE), of_all, ~of_all)]
    overall, edges = abs_rel(aligned, exact), abs_rel(aligned, exact.where(band, torch.nan))
    return torch.stack([overall[0], edges[0], torch.tensor(seconds), *steps])


def mean_step(maps: Tensor, lines: Tensor) -> Tensor:
    """Mean absolute difference of neighbors across lines, (width - 1,) bool, in the rows and in the columns of square
    maps (C, width, width); what is NaN does not count."""
    return torch.cat([one.diff(dim=2).abs()[..., lines].flatten() for one in (maps, maps.mT)]).nanmean()


def tile_borders(whole: int, side: int) -> Tensor:
    """Which differences in a row, (whole - 1,) bool, are across borders of moved tiles."""
    lefts = {tile.left for tile in plan_tiles((whole, whole), (side, side), TILE_OVERLAP)}
    moved = {left for left in lefts if left % PATCH_SIZE}
    return torch.isin(torch.arange(1, whole), torch.tensor(sorted({*moved, *(left + side for left in moved)})))


def _row(measured: Tensor, reference: Tensor) -> Row:
    """Means over scenes (count, 7) and ratios to the enlarged map's, with intervals."""
    edged = measured[:, 1].isfinite()  # a scene may have no edge
    band, before = measured[edged, 1], reference[edged, 1]
    columns = {
        "absrel": intervals.mean(measured[:, 0]),
        "absrel_ratio": intervals.ratio(torch.stack((measured[:, 0], reference[:, 0]), dim=1)),
        "band": intervals.mean(band),
        "band_ratio": intervals.ratio(torch.stack((band, before), dim=1)),
        "seam": intervals.ratio(measured[:, 3:5]),
        "token_seam": intervals.ratio(measured[:, 5:7]),
        "seconds": intervals.mean(measured[:, 2]),
    }
    return intervals.as_json(columns)
