"""The data sets that are read, by the names that commands and mixtures use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..sample import Kind
from . import (
    argoverse,
    aria,
    arkitscenes,
    blendedmvs,
    foundation_stereo,
    hypersim,
    megadepth,
    parallel_domain,
    scannet,
    tartanair,
    taskonomy,
    waymo,
)
from .frame import Listed


class DataSet(NamedTuple):
    """``kind`` of its depth numbers; ``frames`` lists what lies below a folder in the set's own layout."""

    kind: Kind
    frames: Callable[[Path], Iterator[Listed]]


DATA_SETS: dict[str, DataSet] = {
    "argoverse2": DataSet("metric", argoverse.frames),
    "aria": DataSet("metric", aria.frames),
    "arkitscenes": DataSet("metric", arkitscenes.frames),
    "blendedmvs": DataSet("relative", blendedmvs.frames),
    "foundationstereo": DataSet("disparity", foundation_stereo.frames),
    "hypersim": DataSet("metric", hypersim.frames),
    "megadepth": DataSet("relative", megadepth.frames),
    "paralleldomain": DataSet("metric", parallel_domain.frames),
    "scannet": DataSet("metric", scannet.frames),
    "tartanair": DataSet("metric", tartanair.frames),
    "taskonomy": DataSet("metric", taskonomy.frames),
    "waymo": DataSet("metric", waymo.frames),
}
