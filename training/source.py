"""Where batches come from: the protocol between the training loop and its data, and a dataset that fits in memory."""

from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..mforce_core import load_text_encoder
from .config import DataConfig
from .latents import LatentDataset


class EncodedBatch(NamedTuple):
    """Rows of a batch as the frozen encoders left them.

    ``rgb`` (B, C, h, w) float32 latents; ``depth`` (B, H, W) float32 in any unit, 0 where not measured, or None where
    the data has no depth; ``text`` (B, T, D) float32 features of the captions.
    """

    rgb: Tensor
    depth: Tensor | None
    text: Tensor


class Source(Protocol):
    """Batches by step.

    ``batch`` is a pure function of (the source's own seed, step, row): however many ranks share the rows of a global
    batch, they see the same batches, and a resumed run needs no state. ``len`` is the number of samples.

    Attributes:
        latent_shape: (C, h, w) of one sample's ``rgb``.
        null_text: (T, D) features of the empty caption, for caption dropout and classifier-free guidance.
    """

    latent_shape: tuple[int, int, int]
    null_text: Tensor

    def __len__(self) -> int: ...

    def batch(self, step: int, rows: slice) -> EncodedBatch:
        """``rows`` (start and stop given) of the global batch of ``step``."""
        ...


@runtime_checkable
class SequentialSource(Protocol):
    """A source that can only be read in order says where it is, so that a resumed run need not read it all again."""

    def state_dict(self) -> dict[str, list[int]]:
        """The place after the last batch."""
        ...

    def load_state_dict(self, state: dict[str, list[int]]) -> None: ...


class MemorySource:
    """All latents of a folder written by ``python -m mforce.training.latents``, captions as word indices."""

    def __init__(self, folder: Path, text_encoder: Path, *, batch_size: int, seed: int) -> None:
        self.text_encoder = load_text_encoder(text_encoder)
        self.data = LatentDataset(folder, self.text_encoder)
        self.batch_size, self.seed = batch_size, seed
        channels, height, width = self.data.rgb.shape[1:]
        self.latent_shape = (channels, height, width)
        self.null_text = self.text_encoder.encode([""])[0]

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, step: int, rows: slice) -> EncodedBatch:
        index = self.data.batch_indices(step, self.batch_size, self.seed)[rows]
        text = self.text_encoder.table[self.data.token_ids[index]]
        return EncodedBatch(self.data.rgb[index].float(), self.data.depth[index].float(), text)


def open_source(
    data: DataConfig,
    text_encoder: Path | None,
    *,
    batch_size: int,
    seed: int,
    depth: bool = True,
    device: torch.device | str = "cpu",
) -> Source:
    """The source that the configuration names.

    A stream encodes on ``device`` as it reads, and without ``depth`` it also gives samples that have none. Batches are
    on the CPU whatever their source.

    Raises:
        ValueError, OSError: nothing there, or damaged; one sentence.
    """
    if data.source == "memory":
        assert data.latents is not None
        assert text_encoder is not None
        return MemorySource(data.latents, text_encoder, batch_size=batch_size, seed=seed)
    if data.source == "encoded":
        from .data.encoded import EncodedSource

        assert data.latents is not None
        return EncodedSource(data.latents, text_encoder, batch_size=batch_size, seed=seed)
    from .data.encode import EncodeSettings
    from .data.shards import find_shards
    from .data.stream import StreamSource

    settings = EncodeSettings(
        vae=str(data.autoencoder), text_encoder=str(text_encoder), canvas=data.size, depth=depth, device=str(device)
    )
    return StreamSource(find_shards(list(data.shards)), settings, batch_size=batch_size, seed=seed)
