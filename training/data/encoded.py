"""Batches from encoded shards, which need not fit in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from ..batches import EncodedBatch
from .encoded_folder import EncodedFolder, one_autoencoder
from .order import Order, Pick


class EncodedSource:
    """Batches from one folder of encoded shards or a mixture of several; see :class:`..batches.Source`.

    A batch has latents of one shape. Where a folder of a mixture has no depth, and another one has, its maps are empty.

    Args:
        folders: each with ``latents-*.safetensors`` that :mod:`.encode` wrote.
        text_encoder: file or folder. Where the shards hold features it is not needed; where they hold captions alone
            it encodes them as they come.
        batch_size: rows of a global batch.
        seed: of the order of samples, and of the caption of several with which a sample begins.
        weights: of the folders, of which the rows of a batch are drawn; all the same by default.

    Attributes:
        shapes: of the latents, the most frequent first; ``order`` numbers folders and shapes as they stand here.
        depth_scale: pixels of depth per latent, 0 where no folder has depth.

    Raises:
        ValueError: folders that cannot be used, or not together.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        text_encoder: Path | None,
        *,
        batch_size: int,
        seed: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.folders = [EncodedFolder(folder, text_encoder) for folder in folders]
        first = self.folders[0]
        for one, folder in combinations(self.folders, 2):
            _check_together(one, folder)
        counts: Counter[tuple[int, int, int]] = Counter()
        for folder in self.folders:
            counts.update({shape: folder.count(shape) for shape in folder.shapes})
        self.shapes = [shape for shape, _ in counts.most_common()]
        self.depth_scale = max(folder.layout.depth_scale or 0 for folder in self.folders)
        self._length = counts.total()
        table = [[folder.count(shape) for shape in self.shapes] for folder in self.folders]
        self.seed = seed
        self.order = Order(table, weights or [1.0] * len(folders), batch_size, seed)
        self.latent_shape, self.null_text = self.shapes[0], first.null_text

    def __len__(self) -> int:
        return self._length

    def batch(self, step: int, rows: slice) -> EncodedBatch:
        wanted = self.order.picks(step)[rows]
        found = {pick: self._sample(pick) for pick in sorted(set(wanted))}  # shard by shard
        samples = [found[pick] for pick in wanted]
        maps = [depth for _, depth, _ in samples if depth is not None]
        return EncodedBatch(
            torch.stack([rgb for rgb, _, _ in samples]),
            torch.stack(maps) if maps else None,
            torch.stack([text for _, _, text in samples]),
        )

    def _sample(self, pick: Pick) -> tuple[Tensor, Tensor | None, Tensor]:
        rgb, depth, text = self.folders[pick.part].sample(self.shapes[pick.shape], pick.sample, pick.epoch, self.seed)
        if depth is None and self.depth_scale:
            depth = torch.zeros(rgb.shape[1] * self.depth_scale, rgb.shape[2] * self.depth_scale)
        return rgb, depth, text


def _check_together(one: EncodedFolder, other: EncodedFolder) -> None:
    """Raises ValueError where two folders cannot be parts of one mixture."""
    encoders = one.layout.text_encoder, other.layout.text_encoder
    if one.null_text.shape != other.null_text.shape or (None not in encoders and encoders[0] != encoders[1]):
        raise ValueError(f"{one.path} and {other.path} were encoded with different text encoders.")
    scales = {one.layout.depth_scale, other.layout.depth_scale} - {None}
    if not one_autoencoder(one.layout, other.layout) or len(scales) > 1:
        raise ValueError(f"{one.path} and {other.path} were encoded with different autoencoders.")
