"""Finding a data set on disk: which layout it has, and the reader of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...mforce_core.text_file import read_text
from .center_crop import CenterCropped
from .example import DataSet
from .marigold_layout import MARIGOLD_SETS, MarigoldDataSet
from .moge_layout import INDEX, MOGE_SETS, MogeDataSet
from .rendered import RenderedScenes
from .sources import Source

Layout = Literal["auto", "moge", "marigold"]

#: The set that needs no files.
SCENES = "scenes"
SET_NAMES = (*dict.fromkeys((*MARIGOLD_SETS, *MOGE_SETS)), SCENES)


@dataclass(frozen=True)
class DataSpec:
    """Which data set, and where; small enough to be sent to other processes.

    Attributes:
        key: of `SET_NAMES`.
        path: folder or tar; None for rendered scenes.
        layout: whose; auto is MoGe's where there is an index, else Marigold's.
        listing: the file with Marigold's list.
        region: of KITTI in Marigold's layout: eigen, garg or none.
        scenes, seed: of rendered scenes: how many, of which sequence.
        crop: side of the squares that pictures are cut to, see `CenterCropped`; None: whole pictures.
        own: class that opens ``path`` as a data set, instead of those of ``key``; it is scored by MoGe's protocol.
    """

    key: str
    path: Path | None = None
    layout: Layout = "auto"
    listing: Path | None = None
    region: str = "eigen"
    scenes: int = 64
    seed: int = 1_000_000
    crop: int | None = None
    own: Callable[[Path], DataSet] | None = None


def open_data(spec: DataSpec) -> tuple[DataSet, str]:
    """The data set, and the name of the protocol that its layout stands for.

    Raises:
        ValueError: an unknown set, a missing path or list.
    """
    data, protocol = _whole(spec)
    return (data if spec.crop is None else CenterCropped(data, spec.crop)), protocol


def _whole(spec: DataSpec) -> tuple[DataSet, str]:
    if spec.own is None and spec.key not in SET_NAMES:
        raise ValueError(f"There is no data set {spec.key}: there are {', '.join(SET_NAMES)}, and files of your own.")
    if spec.key == SCENES:
        return RenderedScenes(spec.scenes, spec.seed), "moge"
    if spec.path is not None and spec.own is not None:
        return spec.own(spec.path), "moge"
    if spec.path is None:
        raise ValueError(f"Give the folder or tar of {spec.key} with `data`.")
    source = Source(spec.path)
    if layout_of(spec, source) == "moge":
        return MogeDataSet(spec.key, source), "moge"
    if spec.listing is None:
        known = MARIGOLD_SETS.get(spec.key)
        hint = f" (Marigold's is data_split/{known.listed})" if known else ""
        raise ValueError(f"Marigold's layout of {spec.key} needs a list of its pictures{hint}: name it with `list`.")
    return MarigoldDataSet(spec.key, source, read_text(spec.listing), spec.region), "marigold"


def layout_of(spec: DataSpec, source: Source) -> str:
    """moge or marigold."""
    if spec.layout == "auto":
        return "moge" if spec.path is not None and spec.path.is_dir() and source.has(INDEX) else "marigold"
    return spec.layout
