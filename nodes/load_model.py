"""Node: Load MF Model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io

from .host.joint_model import ATTENTION_OPTION
from .host.model_files import load_joint_model, load_small_vae, load_word_clip, preview_like

NANO = "nano (built-in)"
NANO_FOLDER = Path(__file__).resolve().parents[1] / "models" / "nano"

_WEIGHT_DTYPES: dict[str, tuple[torch.dtype | None, bool]] = {
    "default": (None, False),
    "fp8_e4m3fn": (torch.float8_e4m3fn, False),
    "fp8_e4m3fn_fast": (torch.float8_e4m3fn, True),
    "fp8_e5m2": (torch.float8_e5m2, False),
}


class MissingPartError(AttributeError, ValueError):
    """A part that the checkpoint does not carry was used; an AttributeError so that ``hasattr`` works."""


class MissingPart:
    """Stands in for a CLIP or VAE that a checkpoint does not carry; using it says what to load instead."""

    def __init__(self, part: str, checkpoint: str, instead: str) -> None:
        self._message = f"Load MF Model: {checkpoint} carries no {part}. {instead}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself asks for, when it copies for one
            raise AttributeError(name)
        raise MissingPartError(self._message)


class MFLoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFLoadModel",
            display_name="Load MF Model",
            category="model/loaders",
            description=(
                "Load a Modality Forcing model: one diffusion transformer for an image and its depth. "
                "The small model 'nano' comes with the pack, its text encoder and VAE included."
            ),
            search_aliases=[
                "modality forcing",
                "mforce",
                "rgbd",
                "depth model",
                "nano",
                "load diffusion model",
            ],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=[NANO, *folder_paths.get_filename_list("diffusion_models")],
                    default=NANO,
                    tooltip=(
                        "The built-in nano (128x128 pictures, runs on a CPU), or a Modality Forcing"
                        " checkpoint (.safetensors) from models/diffusion_models. A config.json beside the"
                        " file is read."
                    ),
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(_WEIGHT_DTYPES),
                    default="default",
                    tooltip=(
                        "How weights are kept in memory. The fp8 types halve it at some loss of quality; "
                        "'fast' also multiplies in fp8 where the GPU can. Files that are fp8 or int8 already stay"
                        " as they are and are more accurate."
                    ),
                    advanced=True,
                ),
                io.Combo.Input(
                    "attention",
                    options=["auto", "triton", "sdpa", "sdpa_cudnn", "sdpa_flash", "sdpa_efficient", "xformers"],
                    default="auto",
                    optional=True,
                    tooltip=(
                        "Which attention kernel runs. auto: ComfyUI's, where it was started with a flag such as"
                        " --use-sage-attention, else the fastest on this GPU, measured once a size. One that cannot"
                        " run falls back to auto and says so in the log."
                    ),
                    advanced=True,
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="Denoises joint (RGB, depth) latents, with MF Sampler or any core sampler."),
                io.Clip.Output(
                    tooltip=(
                        "nano's text encoder. For other checkpoints use CLIPLoader, type flux2, with the"
                        " Qwen3 of the model's size (8B for the released weights)."
                    )
                ),
                io.Vae.Output(tooltip="nano's autoencoder. For other checkpoints use VAELoader with the FLUX.2 VAE."),
            ],
        )

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str = "default", attention: str = "auto") -> io.NodeOutput:
        dtype, fp8_matmul = _WEIGHT_DTYPES[weight_dtype]
        if model_name == NANO:
            model, vae = load_joint_model(str(NANO_FOLDER), dtype, fp8_matmul), load_small_vae(NANO_FOLDER)
            preview_like(model, vae)
            _ask_for(model, attention)
            return io.NodeOutput(model, load_word_clip(NANO_FOLDER), vae)
        if not model_name.endswith(".safetensors"):
            raise ValueError(
                f"Load MF Model: {model_name} is not a .safetensors file, and other formats can run code when"
                " opened; convert it first."
            )
        path = folder_paths.get_full_path_or_raise("diffusion_models", model_name)
        try:
            model = load_joint_model(path, dtype, fp8_matmul)
        except ValueError as error:
            reason = str(error).removeprefix(f"{path}: ").rstrip(".")
            raise ValueError(f"Load MF Model cannot use {model_name}: {reason}.") from error
        _ask_for(model, attention)
        clip = MissingPart("text encoder", model_name, "Add a CLIPLoader of type flux2 with Qwen3 and connect that.")
        vae = MissingPart("VAE", model_name, "Add a VAELoader with the FLUX.2 VAE and connect that.")
        return io.NodeOutput(model, clip, vae)


def _ask_for(model: Any, attention: str) -> None:
    """Let the model's runs use an attention back end; automatic needs no word."""
    if attention != "auto":
        model.model_options["transformer_options"][ATTENTION_OPTION] = attention
