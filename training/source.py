"""From a configuration to where its batches come from."""

from pathlib import Path

import torch

from .batches import Source
from .config import DataConfig
from .data.encode import EncodeSettings
from .data.encoded import EncodedSource
from .data.shards import find_shards
from .data.stream import StreamSource


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
    if data.source == "encoded":
        assert data.latents is not None
        return EncodedSource(data.latents, text_encoder, batch_size=batch_size, seed=seed)
    settings = EncodeSettings(
        vae=str(data.autoencoder), text_encoder=str(text_encoder), canvas=data.size, depth=depth, device=str(device)
    )
    return StreamSource(find_shards(list(data.shards)), settings, batch_size=batch_size, seed=seed)
