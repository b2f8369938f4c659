"""The transformer with ComfyUI's constructor and calling convention.

Relies on: how ``comfy.model_base.BaseModel`` builds its ``unet_model`` and calls it; ``comfy.patcher_extension``, whose
wrappers other packs put around a diffusion model.
"""

from __future__ import annotations

from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor

from ...kernels import use_attention
from ...mforce_core.model.config import Architecture, Schedule
from ...mforce_core.model.tokens import latents_to_tokens, tokens_to_latents
from ...mforce_core.model.transformer import ModalityForcingTransformer
from .attention import host_attention

#: Key of ``transformer_options`` that names the attention back end; without it the choice is automatic.
ATTENTION_OPTION = "modality_forcing_attention"
#: Key of ``transformer_options`` that holds the block cache of a run.
CACHE_OPTION = "modality_forcing_block_cache"


class ComfyTransformer(ModalityForcingTransformer):
    """What a MODEL holds as ``diffusion_model``."""

    def __init__(
        self,
        architecture: Architecture,
        schedule: Schedule,
        *,
        dtype: torch.dtype,
        device: Any,
        operations: Any,
        **_names_for_lora: int,
    ) -> None:
        super().__init__(architecture, schedule=schedule, operations=operations, device=device, dtype=dtype)
        self.dtype = dtype

    def forward(  # type: ignore[override]
        self,
        x: list[Tensor],
        timestep: list[Tensor],
        context: Tensor,
        guidance: Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
    ) -> list[Tensor]:
        """RGB and depth states (B, C, h, w) to RGB velocity and clean depth in the same layout, float32.

        The computation is in the context's dtype, which is how ComfyUI says it.
        """
        options = {} if transformer_options is None else transformer_options
        if control is not None:
            raise ValueError(
                "ControlNets do not fit this model: to follow a depth map, give it the depth through Encode Depth."
            )
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timestep, context, guidance, options)

    def _forward(
        self,
        x: list[Tensor],
        timestep: list[Tensor],
        context: Tensor,
        guidance: Tensor | None,
        transformer_options: dict[str, Any],
    ) -> list[Tensor]:
        grid = (x[0].shape[-2], x[0].shape[-1])
        rgb, depth = map(latents_to_tokens, x)
        t_rgb, t_depth = timestep
        modulations = None
        if _same_for_the_batch(t_rgb, t_depth, guidance):
            levels = [None if level is None else level[:1] for level in (t_rgb, t_depth, guidance)]
            modulations = self.modulations(*levels, dtype=context.dtype)
        # Core names the conditionings of a call, which it may batch or not.
        cache, key = transformer_options.get(CACHE_OPTION), tuple(transformer_options.get("uuids", ()))
        with use_attention(transformer_options.get(ATTENTION_OPTION), host_attention(transformer_options)):
            velocity, clean = super().forward(
                rgb, depth, context, t_rgb, t_depth, grid, guidance, modulations=modulations, dtype=context.dtype,
                cache=cache, cache_key=key,
            )  # fmt: skip
        assert clean is not None  # there is always a depth stream here
        return [tokens_to_latents(out.float(), grid) for out in (velocity, clean)]


def _same_for_the_batch(*levels: Tensor | None) -> bool:
    """Whether the levels (B,) of every picture are the same, as core's samplers give them, and on a CPU.

    They are then modulated by one row whatever the batch: the rounding of a product depends on how many rows it has.
    On a GPU the question would wait for it, and other products depend on the batch there as well.
    """
    given = [level for level in levels if level is not None]
    return all(level.device.type == "cpu" and torch.equal(level, level[:1].expand_as(level)) for level in given)
