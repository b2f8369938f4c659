"""Batches from encoded samples that all lie in the memory of a device."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from ..batches import EncodedBatch
from .encoded import EncodedSource
from .encoded_folder import EncodedFolder, OpenShard
from .order import Pick


class ResidentSource:
    """The batches of an :class:`EncodedSource`, gathered on a device; see :class:`..batches.Source`.

    Args:
        source: opened on the same folders.
        depth: whether depth is kept, too.
        device: where samples are kept, as they are stored, and batches are made.

    Raises:
        ValueError: they do not fit its memory.
    """

    def __init__(self, source: EncodedSource, *, depth: bool, device: torch.device) -> None:
        self._source, self._device = source, device
        self._side = source.depth_scale if depth else 0
        try:
            self._blocks = {
                (part, number): _Block(folder, shape, depth, device)
                for part, folder in enumerate(source.folders)
                for number, shape in enumerate(source.shapes)
                if folder.count(shape)
            }
        except torch.OutOfMemoryError:
            raise ValueError(
                f"data.on_device: the {len(source)} samples do not fit the memory of {device}: leave it out"
            ) from None
        self.latent_shape, self.null_text = source.latent_shape, source.null_text.to(device)

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, step: int, rows: slice) -> EncodedBatch:
        wanted = self._source.order.picks(step)[rows]
        parts = sorted({(pick.part, pick.shape) for pick in wanted})
        places = [[row for row, pick in enumerate(wanted) if (pick.part, pick.shape) == part] for part in parts]
        found = [
            self._blocks[part].batch([wanted[row] for row in own], self._source.seed, self._side)
            for part, own in zip(parts, places, strict=True)
        ]
        back = torch.tensor([row for own in places for row in own], device=self._device).argsort()

        def together(values: Sequence[Tensor]) -> Tensor:
            return values[0] if len(values) == 1 else torch.cat(list(values))[back]

        maps = [batch.depth for batch in found if batch.depth is not None]
        return EncodedBatch(
            together([batch.rgb for batch in found]),
            together(maps) if maps else None,
            together([batch.text for batch in found]),
        )


def resident_bytes(folders: Sequence[Path], *, depth: bool, features: int) -> int:
    """What a :class:`ResidentSource` of folders will keep on its device, from the headers of their shards.

    Not counted is a table of words, which is small.

    Args:
        depth: whether depth is kept, too.
        features: bytes of the features of one caption, where shards hold captions alone.
    """
    total = 0
    for path in (path for folder in folders for path in folder.glob("latents-*.safetensors")):
        shard = OpenShard(path)
        total += shard.bytes_of("rgb")
        if depth and shard.layout.depth_shape:
            total += shard.bytes_of("depth") + shard.rows * torch.float32.itemsize  # and the scale of each map
        if shard.layout.text == "captions":
            total += len(shard.captions) * torch.int64.itemsize + len(set(shard.captions)) * features
        else:
            total += shard.bytes_of("text") + sum(
                shard.bytes_of(name, torch.int64) for name in ("text_row", "token_ids")
            )
    return total


class _Block:
    """The samples of a folder with latents of one shape; text is a table and, by caption, the rows of it."""

    def __init__(self, folder: EncodedFolder, shape: tuple[int, int, int], depth: bool, device: torch.device) -> None:
        self.shards = folder.shards(shape)
        self.ends = list(accumulate(shard.rows for shard in self.shards))
        self.device = device
        self.rgb = self._whole("rgb")
        self.depth: Tensor | None = None
        if depth and folder.has_depth:
            self.depth = self._whole("depth")
            self.scales = torch.cat([shard.depth_scales for shard in self.shards]).to(device)
        tables, index = zip(*map(folder.texts, self.shards), strict=True)
        starts = accumulate((len(table) for table in tables[:-1]), initial=0)
        self.table = torch.cat(tables).to(device)
        self.index = torch.cat([part + start for part, start in zip(index, starts, strict=True)]).to(device)
        self.simple = all(shard.one_caption_each for shard in self.shards)
        self.first_caption = list(accumulate((len(part) for part in index[:-1]), initial=0))

    def batch(self, picks: Sequence[Pick], seed: int, side: int) -> EncodedBatch:
        """``side``: pixels of depth per latent where the run has depth, else 0."""
        rows = torch.tensor([pick.sample for pick in picks], device=self.device)
        numbers = rows
        if not self.simple:
            numbers = torch.tensor([self._caption(pick, seed) for pick in picks], device=self.device)
        rgb = self.rgb[rows].float()
        maps = None
        if self.depth is not None:
            maps = self.depth[rows].float() * self.scales[rows, None, None]
        elif side:
            maps = torch.zeros(len(rows), rgb.shape[2] * side, rgb.shape[3] * side, device=self.device)
        return EncodedBatch(rgb, maps, self.table[self.index[numbers]].float())

    def _caption(self, pick: Pick, seed: int) -> int:
        shard = bisect_right(self.ends, pick.sample)
        row = pick.sample - (self.ends[shard - 1] if shard else 0)
        return self.first_caption[shard] + self.shards[shard].caption(row, pick.epoch, seed)

    def _whole(self, name: str) -> Tensor:
        """Shard by shard, so that the host never holds all of it."""
        whole: Tensor | None = None
        for shard, end in zip(self.shards, self.ends, strict=True):
            part = shard.whole(name)
            if whole is None:
                whole = torch.empty(self.ends[-1], *part.shape[1:], dtype=part.dtype, device=self.device)
            whole[end - len(part) : end] = part
        assert whole is not None
        return whole
