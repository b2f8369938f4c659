"""An ordinary ComfyUI MODEL that denoises nested (RGB, depth) latents.

Relies on: ``comfy.model_base.BaseModel`` (_apply_model, extra_conds, scale_latent_inpaint, process_latent_in and _out,
memory_required, latent_shapes), ``comfy.supported_models_base.BASE``, and ``comfy.utils.pack_latents``, the flat form
in which core samples a nested latent.
"""

from __future__ import annotations

import math
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.nested_tensor
import comfy.supported_models_base
import comfy.utils
import torch
from torch import Tensor

from ...mforce_core.model.config import Architecture, Distilled, Schedule
from ...mforce_core.release import GUIDANCE, LOG2_ALPHA, TEXT_TOKENS
from .canvas_size import canvas_problem
from .comfy_transformer import ComfyTransformer
from .live_preview import SideBySide
from .noise_levels import JointModelSampling, JointRun
from .notices import notice

# Activations alive at the peak, in rows of the hidden size per token (counted: 21.1).
_LIVE_WIDTHS = 22


class JointModelConfig(comfy.supported_models_base.BASE):
    """What ComfyUI asks about a model before it builds one."""

    latent_format = comfy.latent_formats.Flux2
    # float16 overflows in this family.
    supported_inference_dtypes = (torch.bfloat16, torch.float32)
    vae_key_prefix = ("vae.",)
    text_encoder_key_prefix = ("text_encoders.",)

    def __init__(
        self,
        architecture: Architecture,
        schedule: Schedule,
        trained_size: tuple[int, int] | None = None,
        distilled: Distilled | None = None,
    ) -> None:
        # The sizes under FLUX's own names let LoRA files for a FLUX.2 base find their layers.
        super().__init__(
            {
                "architecture": architecture,
                "schedule": schedule,
                "hidden_size": architecture.hidden_size,
                "depth": architecture.depth_double,
                "depth_single_blocks": architecture.depth_single,
            }
        )
        self.trained_size, self.distilled = trained_size, distilled

    def get_model(self, state_dict: dict[str, Tensor], prefix: str = "", device: Any = None) -> JointDiffusion:
        return JointDiffusion(self, device=device)


class JointDiffusion(comfy.model_base.Flux):
    """MODEL whose latent is a pair: RGB (B, 128, h, w) and depth (B, 256, h, w)."""

    def __init__(self, model_config: JointModelConfig, device: Any = None) -> None:
        super().__init__(model_config, comfy.model_base.ModelType.FLUX, device=device, unet_model=ComfyTransformer)
        self.architecture: Architecture = model_config.unet_config["architecture"]
        self.model_sampling = JointModelSampling(model_config.unet_config["schedule"])
        self.run = JointRun()
        if self.architecture.in_channels != self.latent_format.latent_channels:
            self.latent_format.latent_rgb_factors = None  # an autoencoder whose colors are not known: no preview
        self.preview = SideBySide(self.latent_format)
        self.latent_format.latent_rgb_factors_reshape = self.preview

    def begin_run(
        self, sampling: Any, denoise_mask: Tensor | None, latent_shapes: list[Any], sampler: Any = None
    ) -> None:
        """Take up the settings of the run that starts now; see `.sampler_wrappers.around_run`.

        A path sampler brings the clocks of its path, and its solver has the floor of the depth velocity.

        Raises:
            ValueError: the latent is not a pair of this model's streams.
        """
        shapes = [tuple(shape) for shape in latent_shapes]
        channels = (self.architecture.in_channels, self.architecture.depth_channels)
        if len(shapes) != 2 or any(len(shape) != 4 for shape in shapes):
            raise ValueError(
                "This model samples RGB and depth together and needs a joint latent: use MF Empty Latent, "
                "MF Image to Depth Latent or MF Depth to Image Latent."
            )
        if tuple(shape[1] for shape in shapes) != channels or shapes[0][2:] != shapes[1][2:]:
            raise ValueError(
                f"The joint latent has streams {shapes[0]} and {shapes[1]}, this model wants {channels[0]}"
                f" and {channels[1]} channels on one grid: make the latent for this model's VAE and depth"
                " patches."
            )
        if problem := canvas_problem(shapes[0][2:], self.model_config.trained_size):
            sentence, hopeless = problem
            if hopeless:
                raise ValueError(sentence)
            notice(sentence)
        # A foreign model_sampling patch (core's ModelSamplingFlux node) knows no tilt.
        log2_alpha = getattr(sampling, "log2_alpha", LOG2_ALPHA)
        clocks = getattr(sampler, "clocks", None)
        min_depth_time = getattr(sampling, "min_depth_time", 0.0) if clocks is None else 0.0
        self.latent_shapes = latent_shapes
        self.run = JointRun.from_mask(denoise_mask, latent_shapes, log2_alpha, min_depth_time, clocks)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        text = kwargs.get("cross_attn")
        wanted = self.architecture.context_in_dim
        if kwargs.get("reference_latents"):
            raise ValueError(
                "This model takes no reference images: remove ReferenceLatent, or start from the picture with MF Merge"
                " Latent and a denoise below 1."
            )
        if text is None:
            raise ValueError(
                "This model needs a text conditioning: connect CLIP Text Encode (an empty prompt will do)."
            )
        if text.shape[-1] != wanted:
            raise ValueError(
                f"The conditioning has {text.shape[-1]} features a token, this model wants {wanted}: use the"
                " CLIP output of Load MF Model for nano, or CLIPLoader of type flux2 with the Qwen3 of the"
                " model's size."
            )
        if text.shape[1] > TEXT_TOKENS:
            notice(
                f"The prompt is {text.shape[1]} tokens long and this model was trained with {TEXT_TOKENS}: what comes"
                " after them may be ignored or spoil the result; shorten the prompt."
            )
        out = {"c_crossattn": comfy.conds.CONDRegular(text)}
        if self.architecture.use_guidance_embed:
            guidance = torch.tensor([float(kwargs.get("guidance", GUIDANCE))])
            out["guidance"] = comfy.conds.CONDRegular(guidance)
        return out

    def _apply_model(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None = None,
        c_crossattn: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        guidance: Tensor | None = None,
        **_unused: Any,
    ) -> Tensor:
        """Clean (rgb, z) predicted from the packed state (B, 1, L), in float32 whatever the model.

        The step from predictions to clean values is taken here and not in ``model_sampling``: RGB comes as a
        velocity and depth as a clean value, and a detour through one of the two in bfloat16 would cost depth
        its precision.
        """
        run, sigma = self.run, self.model_sampling.timestep(t).float()
        rgb, carried = comfy.utils.unpack_latents(x.float(), self.latent_shapes)
        depth = carried * _per_sample(run.depth_factor(sigma))
        t_rgb, t_depth = run.times(sigma)

        dtype = self.get_dtype_inference()
        velocity, predicted = self.diffusion_model(
            [rgb, depth],
            [t_rgb, t_depth],
            context=comfy.model_management.cast_to_device(c_crossattn, x.device, dtype),
            guidance=None if guidance is None else guidance.to(x.device),
            control=control,
            transformer_options={} if transformer_options is None else transformer_options,
        )
        clean_rgb = rgb - _per_sample(t_rgb) * velocity
        clean_depth = torch.lerp(depth, predicted, _per_sample(run.depth_trust(t_depth)))
        return comfy.utils.pack_latents([clean_rgb, clean_depth / run.alpha])[0]

    def scale_latent_inpaint(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, **kwargs: Any) -> Tensor:
        """What masked-out regions hold during the run: a frozen stream its clean value, others noise."""
        streams = zip(
            self.run.carried_levels(sigma.float()),
            comfy.utils.unpack_latents(latent_image, self.latent_shapes),
            comfy.utils.unpack_latents(noise, self.latent_shapes),
            strict=True,
        )
        return comfy.utils.pack_latents(
            [_per_sample(level) * eps + (1.0 - _per_sample(level)) * clean for level, clean, eps in streams]
        )[0]

    def process_latent_in(self, latent: Any) -> Any:
        return self._scale_depth(latent, 1.0 / self.run.alpha)

    def process_latent_out(self, latent: Any) -> Any:
        return self._scale_depth(latent, self.run.alpha)

    def _scale_depth(self, latent: Any, factor: float) -> Any:
        """The depth stream of a packed or nested latent times ``factor``."""
        if latent.is_nested:
            rgb, depth = latent.unbind()
            return comfy.nested_tensor.NestedTensor([rgb, depth * factor])
        rgb, depth = comfy.utils.unpack_latents(latent, self.latent_shapes)
        return comfy.utils.pack_latents([rgb, depth * factor])[0]

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, list[int]]:
        text = kwargs.get("cross_attn")
        return {} if text is None else {"c_crossattn": list(text.shape)}

    def memory_required(self, input_shape: list[int], cond_shapes: dict[str, Any] | None = None) -> float:
        """Bytes of activations for a packed latent (B, 1, L): so many channels per token are alive at the peak.

        Measured in docs/memory.md.
        """
        lengths = [shape[1] for shape in (cond_shapes or {}).get("c_crossattn", [])]
        channels = self.architecture.in_channels + self.architecture.depth_channels
        tokens = max(lengths, default=TEXT_TOKENS) + 2 * math.prod(input_shape[1:]) // channels
        element = comfy.model_management.dtype_size(self.get_dtype_inference())
        return input_shape[0] * tokens * _LIVE_WIDTHS * self.architecture.hidden_size * element


def check_joint(model: Any) -> None:
    """Raise ValueError unless a MODEL is a joint one."""
    if not isinstance(model.model, JointDiffusion):
        raise ValueError("the model is not a Modality Forcing model; load one with Load MF Model.")


def _per_sample(values: Tensor) -> Tensor:
    """(B,) to (B, 1, 1, 1)."""
    return values[:, None, None, None]
