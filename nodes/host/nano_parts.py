"""The built-in model's text encoder and autoencoder as ComfyUI's CLIP and VAE.

Relies on: the tokenizer and text model that ``comfy.sd.CLIP`` builds from a ``ClipTarget``; the attributes of
``comfy.sd.VAE`` (``first_stage_model``, ``patcher``, ``downscale_ratio``); ``latent_rgb_factors`` of a latent format,
from which ``latent_preview`` makes live previews.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import torch

from ...mforce_core.encoders.autoencoder_files import load_autoencoder
from ...mforce_core.encoders.familiarity import UNFAMILIAR
from ...mforce_core.encoders.patch_autoencoder import PatchAutoencoder
from ...mforce_core.encoders.tiny_autoencoder import TinyAutoencoder
from ...mforce_core.encoders.words import WordTextEncoder, load_text_encoder
from ...mforce_core.release import PATCH_SIZE, RGB_CHANNELS
from .notices import notice

FOLDER = Path(__file__).resolve().parents[2] / "models" / "nano"
#: Its student of few steps, whose text encoder and autoencoder are the same.
FAST_FOLDER = FOLDER.with_name("nano-fast")


def load_clip(path: Path = FOLDER) -> comfy.sd.CLIP:
    """The word-level text encoder of a model folder or one-file checkpoint as a CLIP for CLIP Text Encode."""
    encoder = load_text_encoder(path)
    target = comfy.supported_models_base.ClipTarget(
        partial(WordTokenizer, encoder=encoder), partial(WordTextModel, encoder=encoder)
    )
    return comfy.sd.CLIP(target)


class WordTokenizer:
    """Passes the prompt on unchanged: :class:`WordTextModel` looks up the words."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None, *, encoder: WordTextEncoder):
        self.encoder = encoder

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_options: Any) -> dict[str, list[str]]:
        words = self.encoder.words(text)
        unknown = self.encoder.unknown_words(text)
        if unknown:
            notice(f"Nano does not know these words of the prompt: {', '.join(unknown)[:200]}.")
        if len(words) > self.encoder.length:
            notice(
                f"The prompt has {len(words)} words and nano reads the first {self.encoder.length}; shorten the prompt."
            )
        return {"prompt": [text]}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {}


class WordTextModel(torch.nn.Module):
    """A word table with the methods that ``comfy.sd.CLIP`` calls."""

    dtypes = frozenset({torch.float32})

    def __init__(self, dtype: Any = None, device: Any = None, model_options: Any = None, *, encoder: WordTextEncoder):
        super().__init__()
        self.encoder = encoder
        self.table = torch.nn.Parameter(encoder.table.to(device), requires_grad=False)

    def encode_token_weights(self, tokens: dict[str, list[str]]) -> tuple[torch.Tensor, None]:
        """Features (1, T, D) of one prompt; there is no pooled output."""
        ids = self.encoder.tokenize(tokens["prompt"]).to(self.table.device)
        return self.table[ids].to(comfy.model_management.intermediate_device()), None

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """Nothing to set: there is no layer to choose."""

    def reset_clip_options(self) -> None:
        """There is no layer to choose."""


def load_vae(path: Path = FOLDER) -> comfy.sd.VAE:
    """The patch autoencoder of a model folder or one-file checkpoint behind ComfyUI's VAE class.

    The class chooses its settings by the tensors that it recognizes. It is given those of the tiny FLUX.2 autoencoder,
    which has the same latent shape; then the built-in network takes that one's place.
    """
    vae = comfy.sd.VAE(sd=TinyAutoencoder().state_dict(), metadata={"tae_latent_channels": RGB_CHANNELS})
    network = load_autoencoder(path, dtype=vae.vae_dtype)
    vae.first_stage_model = network
    vae.patcher = comfy.model_patcher.CoreModelPatcher(
        network, load_device=vae.device, offload_device=comfy.model_management.vae_offload_device()
    )
    vae.size = None
    vae.model_size()
    # ComfyUI assumes the TAESD factor of 8 and would crop to it; with 2x2 packing it is 16.
    vae.downscale_ratio = vae.upscale_ratio = PATCH_SIZE
    return vae


def warn_of_unfamiliar(node: str, vae: comfy.sd.VAE, latent: torch.Tensor) -> None:
    """Say so where one of the pictures (B, 128, h, w) is far from what nano was trained on."""
    network = getattr(vae, "first_stage_model", None)
    if isinstance(network, PatchAutoencoder) and network.is_unfamiliar(latent).any():
        notice(f"{node}: {UNFAMILIAR}")


def set_preview_colors(model: Any, vae: comfy.sd.VAE) -> None:
    """Let a MODEL's live previews decode latents as a patch autoencoder does: linearly, one pixel per patch."""
    if not isinstance(vae.first_stage_model, PatchAutoencoder):
        return
    factors, bias = vae.first_stage_model.preview_colors()
    latent_format = model.model.latent_format
    latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias = factors, bias
