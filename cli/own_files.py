"""A folder of somebody's own pictures and depth as a data set of the evaluation, read as `mforce data check` does."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..evaluation.depth.alignment import Limits
from ..evaluation.depth.example import Example, checked
from ..evaluation.stamps import file_facts, stamp_of
from ..training.data.folders import Files
from ..training.data.sample import decode_files, role_of
from ..training.data.shards import FolderShard, find_shards

#: Name of the data set on the command line.
KEY = "files"

#: What depth can be measured by.
_DEPTH = ("depth", "points")


class OwnFiles:
    """Pictures of a folder that have depth beside them.

    Every measured pixel counts. Depth in any unit, disparity by its ``depth_kind``; see docs/data.md.

    Args:
        path: the folder.

    Raises:
        ValueError: not a folder of pictures, or none of them has depth.
    """

    def __init__(self, path: Path) -> None:
        shards = find_shards([str(path)])
        if not path.is_dir() or not all(isinstance(shard, FolderShard) for shard in shards):
            raise ValueError(f"{path} is not a folder of pictures with their depth.")
        self._files: dict[str, Files] = {
            key: files for shard in shards if isinstance(shard, FolderShard) for key, files in shard.samples
        }
        self.names = [key for key, files in self._files.items() if any(role_of(end) in _DEPTH for end, _ in files)]
        if not self.names:
            raise ValueError(f"No picture in {path} has depth: mforce data check says what is missing.")
        self.title, self.limits, self.sharp = path.absolute().name, Limits(), False
        self.preparation = "pictures at their own size, every measured pixel counts"

    def read(self, index: int) -> Example:
        name = self.names[index]
        try:
            contents = {ending: Path(path).read_bytes() for ending, path in self._files[name]}
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read ({error.strerror})") from None
        sample = decode_files(name, contents)
        if sample.depth is None:
            raise ValueError("it has no depth")
        known = np.isfinite(sample.depth) & (sample.depth > 0)
        return checked(Example(name, sample.image, np.where(known, sample.depth, 0), known))

    def stamp(self, index: int) -> str:
        return stamp_of(file_facts(Path(path)) for _, path in self._files[self.names[index]])
