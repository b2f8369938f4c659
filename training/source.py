"""From a configuration to where its batches come from."""

import torch

from .batches import Source
from .config import TrainConfig
from .data.encode import EncodeSettings
from .data.encoded import EncodedSource
from .data.resident import ResidentSource
from .data.shards import find_shards
from .data.stream import StreamSource


def open_source(config: TrainConfig, *, depth: bool, device: torch.device) -> Source:
    """The source that the configuration names.

    A stream encodes on ``device`` as it reads, and without ``depth`` it also gives samples that have none. Batches are
    on the CPU, but for samples that ``data.on_device`` keeps on ``device``.

    Raises:
        ValueError, OSError: nothing there, or damaged; one sentence.
    """
    data, text_encoder = config.data, config.text_encoder
    if data.source == "encoded":
        parts = data.parts()
        weights = list(parts.values())
        source = EncodedSource(
            list(parts), text_encoder, batch_size=config.batch_size, seed=config.seed, weights=weights
        )
        return ResidentSource(source, depth=depth, device=device) if data.on_device else source
    settings = EncodeSettings(
        vae=str(data.autoencoder),
        text_encoder=str(text_encoder),
        canvas=data.size,
        depth=depth,
        device=str(device),
        aspects=data.buckets,
    )
    streams = [(find_shards(list(shards)), weight) for shards, weight in data.streams()]
    shards, shares = zip(*streams, strict=True)
    return StreamSource(shards, settings, batch_size=config.batch_size, seed=config.seed, weights=shares)
