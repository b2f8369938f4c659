"""Node: Load MF Model."""

from __future__ import annotations

import logging

import torch
from comfy_api.latest import io

from ..kernels import candidate_names
from .host.comfy_transformer import ATTENTION_OPTION
from .host.model_files import checkpoint_names, find_checkpoint
from .host.node import Node
from .host.separate_parts import OWN, load_clip, load_vae, missing_clip, missing_vae, part_names

NANO, NANO_FAST = "nano (built-in)", "nano-fast (built-in)"

logger = logging.getLogger(__name__)

_WEIGHT_DTYPES: dict[str, tuple[torch.dtype | None, bool]] = {
    "default": (None, False),
    "fp8_e4m3fn": (torch.float8_e4m3fn, False),
    "fp8_e4m3fn_fast": (torch.float8_e4m3fn, True),
    "fp8_e5m2": (torch.float8_e5m2, False),
}


class MFLoadModel(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFLoadModel",
            display_name="Load MF Model",
            category="model/loaders",
            description=(
                "Load a Modality Forcing model: one diffusion transformer for an image and its depth. The small model"
                " 'nano' comes with the pack, including its text encoder and VAE."
            ),
            search_aliases=[
                "modality forcing",
                "flux depth",
                "flux 2",
                "flux klein",
                "mforce",
                "rgbd",
                "depth model",
                "nano",
                "few steps",
                "load diffusion model",
            ],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=[NANO, NANO_FAST, *checkpoint_names()],
                    default=NANO,
                    tooltip=(
                        "The built-in nano (128x128 pictures, runs on a CPU), nano-fast (the same without guidance in"
                        " few steps: cfg 1 and steps 4, or 1 from image to depth and 6 from depth to image), or a"
                        " Modality Forcing checkpoint from models/diffusion_models: a .safetensors or .gguf file, or a"
                        " folder. A config.json next to the file is read."
                    ),
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(_WEIGHT_DTYPES),
                    default="default",
                    tooltip=(
                        "How the weights are kept in memory. The fp8 types halve the memory at some loss of quality;"
                        " 'fast' also multiplies in fp8 if the GPU can. Files that are already fp8 or int8 stay as they"
                        " are and are more accurate."
                    ),
                    advanced=True,
                ),
                io.Combo.Input(
                    "attention",
                    options=["auto", *candidate_names("attention")],
                    default="auto",
                    optional=True,
                    tooltip=(
                        "Which attention kernel runs. auto: ComfyUI's if it was started with a flag such as"
                        " --use-sage-attention, else the fastest on this GPU, measured once per size. One that is"
                        " chosen here and cannot run stops the run and says why."
                    ),
                    advanced=True,
                ),
                io.Combo.Input(
                    "text_encoder",
                    options=part_names("text_encoders"),
                    default=OWN,
                    optional=True,
                    tooltip=(
                        "The text encoder: nano's own or the checkpoint's, or a file of models/text_encoders. The"
                        " released weights need Qwen3-8B. Not used for nano."
                    ),
                ),
                io.Combo.Input(
                    "vae",
                    options=part_names("vae"),
                    default=OWN,
                    optional=True,
                    tooltip=(
                        "The autoencoder: nano's own or the checkpoint's, or a file of models/vae. The released weights"
                        " need the FLUX.2 VAE. Not used for nano."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="Denoises joint (RGB, depth) latents, with MF Sampler or any core sampler."),
                io.Clip.Output(
                    tooltip=(
                        "The text encoder: nano's, the checkpoint's or the one that was chosen. A CLIPLoader of type"
                        " flux2 with the Qwen3 that matches the model's size does too."
                    )
                ),
                io.Vae.Output(
                    tooltip=(
                        "The autoencoder: nano's, the checkpoint's or the one that was chosen. A VAELoader with the"
                        " FLUX.2 VAE does too."
                    )
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model_name: str,
        weight_dtype: str = "default",
        attention: str = "auto",
        text_encoder: str = OWN,
        vae: str = OWN,
    ) -> io.NodeOutput:
        # Imported here, since they bring a third of the pack's modules, which ComfyUI's start need not wait for.
        from .host import nano_parts
        from .host.bundled_parts import load_bundled_clip, load_bundled_vae
        from .host.model_loader import load_joint_model

        dtype, fp8_matmul = _WEIGHT_DTYPES[weight_dtype]
        if (built_in := {NANO: nano_parts.FOLDER, NANO_FAST: nano_parts.FAST_FOLDER}.get(model_name)) is not None:
            model = load_joint_model(str(built_in), dtype, fp8_matmul, dequantized=True)
            clip, autoencoder = nano_parts.load_clip(), nano_parts.load_vae()
        else:
            path = find_checkpoint(model_name)
            try:
                model = load_joint_model(str(path), dtype, fp8_matmul)
                clip = load_bundled_clip(path) if text_encoder == OWN else load_clip(text_encoder)
                autoencoder = load_bundled_vae(path) if vae == OWN else load_vae(vae)
            except ValueError as error:
                reason = str(error).removeprefix(f"{path}: ").rstrip(".")
                raise ValueError(f"cannot use {model_name}: {reason}.") from error
        if (few := model.model.model_config.distilled) is not None:
            # In the log alone: a workflow that does so wants no toast, and one that does not gets the samplers'.
            others = f" ({few.exceptions})" if few.exceptions else ""
            logger.info(
                "%s is made for %d steps without guidance: set steps to %d%s, cfg to 1 and sampler to %s.",
                *(model_name, few.steps, few.steps, others, few.sampler),
            )
        if autoencoder is not None:
            nano_parts.set_preview_colors(model, autoencoder)
        if attention != "auto":
            model.model_options["transformer_options"][ATTENTION_OPTION] = attention
        clip = missing_clip(model_name) if clip is None else clip
        return io.NodeOutput(model, clip, missing_vae(model_name) if autoencoder is None else autoencoder)
