"""The networks of a run that are in memory, and what they are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .model.transformer import ModalityForcingTransformer


class Autoencoder(Protocol):
    """What is needed of an autoencoder."""

    def encode(self, image: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] -> latents (B, C, h, w)."""

    def decode(self, latents: Tensor) -> Tensor:
        """The way back."""


@dataclass(frozen=True)
class Networks:
    """What makes pictures and depth for a prompt, or for the prompts of a batch.

    Attributes:
        model, autoencoder: the transformer, and the autoencoder that belongs to it.
        text, null_text: features (B, T, C) of the prompts, and (1, T, C) of the empty one.
        guidance: scale for a model that embeds one.
    """

    model: ModalityForcingTransformer
    autoencoder: Autoencoder
    text: Tensor
    null_text: Tensor
    guidance: float | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device
