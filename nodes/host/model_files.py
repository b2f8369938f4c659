"""From files to ComfyUI's MODEL, CLIP and VAE objects."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.utils
import torch

from ...mforce_core.encoders.autoencoder import load_autoencoder
from ...mforce_core.encoders.tiny_autoencoder import TinyAutoencoder
from ...mforce_core.encoders.words import WordTextEncoder, load_text_encoder
from ...mforce_core.weights.checkpoint import CheckpointError, check_tensors, read_header
from .joint_model import JointModelConfig
from .sampler_wrappers import add_run_wrappers
from .weights import assign_quantized_weights, assign_weights, read_weights


def load_joint_model(path: str, dtype: torch.dtype | None = None, fp8_matmul: bool = False) -> Any:
    """Load a Modality Forcing checkpoint as a ModelPatcher.

    Args:
        path: release folder or ``.safetensors`` file; a ``config.json`` beside the file describes it.
        dtype: of the weights in memory, possibly an 8-bit float; None leaves the choice to ComfyUI. Quantized
            checkpoints stay as they are.
        fp8_matmul: multiply in 8-bit floats where the device can.

    Raises:
        CheckpointError, ConfigError: truncated or foreign file, tensors missing, extra or of the wrong shape.
    """
    header = read_header(path)
    architecture = header.architecture
    if not architecture.has_depth:
        raise CheckpointError(
            f"{Path(path).name} is a FLUX.2 text-to-image base without a depth stream: load it with Load"
            " Diffusion Model, or choose a Modality Forcing checkpoint here."
        )
    problems = check_tensors(header.shapes, architecture)
    if problems:
        raise CheckpointError(f"{Path(path).name} does not hold the model it should: {'; '.join(problems)}.")

    tensors = read_weights(header, fp8_matmul=fp8_matmul)
    config = JointModelConfig(architecture, header.config.schedule)
    config.quant_config = comfy.utils.detect_layer_quantization(tensors, "")
    _choose_dtypes(config, tensors, dtype, fp8_matmul)
    if config.quant_config:
        model = config.get_model(tensors)
        assign_quantized_weights(model, tensors)
    else:
        # Built without storage: parameters become the file's tensors, so the weights are never in memory twice.
        model = config.get_model(tensors, device="meta")
        assign_weights(model, tensors)

    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    model.to(offload_device)
    patcher = comfy.model_patcher.CoreModelPatcher(model, load_device=load_device, offload_device=offload_device)
    add_run_wrappers(patcher)
    patcher.cached_patcher_init = (load_joint_model, (path, dtype, fp8_matmul))
    return patcher


def _choose_dtypes(
    config: JointModelConfig, tensors: dict[str, torch.Tensor], dtype: torch.dtype | None, fp8_matmul: bool
) -> None:
    """Storage and computation dtypes by ComfyUI's own rules; of a quantized model, those of its other weights."""
    device = comfy.model_management.get_torch_device()
    supported = list(config.supported_inference_dtypes)
    quantized = config.quant_config is not None
    if dtype is None or quantized:
        dtype = comfy.model_management.unet_dtype(
            model_params=comfy.utils.calculate_parameters(tensors),
            supported_dtypes=supported,
            weight_dtype=None if quantized else comfy.utils.weight_dtype(tensors),
        )
    cast = comfy.model_management.unet_manual_cast(None if quantized else dtype, device, supported)
    config.set_inference_dtype(dtype, cast, device=device)
    config.optimizations["fp8"] = fp8_matmul


def load_word_clip(folder: Path) -> comfy.sd.CLIP:
    """The built-in model's word-level text encoder as a CLIP that Clip Text Encode takes."""
    encoder = load_text_encoder(folder)
    target = comfy.supported_models_base.ClipTarget(
        partial(WordTokenizer, encoder=encoder), partial(WordTextModel, encoder=encoder)
    )
    return comfy.sd.CLIP(target)


class WordTokenizer:
    """Passes the prompt on as it is: words are looked up by :class:`WordTextModel`."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None, *, encoder: WordTextEncoder):
        self.encoder = encoder

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_options: Any) -> dict[str, list[str]]:
        unknown = self.encoder.unknown_words(text)
        if unknown:
            logging.info("Nano does not know these words of the prompt: %s", ", ".join(unknown))
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
        """There is no layer to choose."""

    def reset_clip_options(self) -> None:
        """There is no layer to choose."""


def load_small_vae(folder: Path) -> comfy.sd.VAE:
    """The built-in model's autoencoder behind ComfyUI's VAE class.

    The class builds its network from the tensors that it recognizes. Those of the tiny FLUX.2 autoencoder, which has
    the same latent shape, give it every setting; then the built-in network takes that one's place.
    """
    vae = comfy.sd.VAE(sd=TinyAutoencoder().state_dict(), metadata={"tae_latent_channels": 128})
    network = load_autoencoder(folder, dtype=vae.vae_dtype)
    vae.first_stage_model = network
    vae.patcher = comfy.model_patcher.CoreModelPatcher(
        network, load_device=vae.device, offload_device=comfy.model_management.vae_offload_device()
    )
    vae.size = None
    vae.model_size()
    # ComfyUI assumes the TAESD factor of 8 and would crop to it; with 2x2 packing it is 16.
    vae.downscale_ratio = vae.upscale_ratio = 16
    return vae


def preview_like(model: Any, vae: comfy.sd.VAE) -> None:
    """Let live previews show the latents of the built-in autoencoder: its linear decoding, one pixel a patch."""
    inverse = vae.first_stage_model.inverse
    latent_format = model.model.latent_format
    latent_format.latent_rgb_factors = inverse.weight.float().mean((2, 3)).tolist()
    latent_format.latent_rgb_factors_bias = inverse.bias.float().tolist()
