"""What surrounds one sampling run of a joint model, whichever sampler node started it.

ComfyUI calls wrappers around ``CFGGuider.outer_sample`` with the packed latent, noise levels and masks: the earliest
point that knows all of them, and the latest that sees the result.

Relies on: ``CFGGuider.conds`` and the arguments of ``CFGGuider.outer_sample`` and ``Sampler.sample`` in
``comfy.samplers``, and the names of core's sampler functions that stop before a noise level of 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import comfy.patcher_extension
import comfy.utils
import torch
from torch import Tensor

from ...mforce_core.rollout_settings import needless_work
from .depth_latent import fill_anew
from .joint_latent import record_of_stream
from .notices import notice
from .path_sampler import PathSampler
from .regions import pack_regions

#: Samplers of core that end before the noise level 0 that they are asked for: at 0.001, or at the last but one level.
_UNI_PC, _UNI_PC_END = ("sample_unipc", "sample_unipc_bh2"), 0.001
_DPM_SOLVER = ("dpm_fast_function", "dpm_adaptive_function")


class OuterSample(NamedTuple):
    """The arguments of ``CFGGuider.outer_sample``, in its order."""

    noise: Tensor
    latent_image: Tensor
    sampler: Any
    sigmas: Tensor
    denoise_mask: Tensor | None = None
    callback: Any = None
    disable_pbar: bool = False
    seed: int | None = None


def add_run_wrappers(patcher: Any) -> None:
    """Let a ModelPatcher of a joint model prepare and finish every run."""
    types = comfy.patcher_extension.WrappersMP
    patcher.add_wrapper_with_key(types.OUTER_SAMPLE, "modality_forcing", around_run)
    patcher.add_wrapper_with_key(types.SAMPLER_SAMPLE, "modality_forcing", finish_denoising)


def around_run(executor: Any, *args: Any, latent_shapes: list[Any], **kwargs: Any) -> Tensor:
    """Give the model its settings for this run; afterwards put back what was masked out.

    Raises:
        ValueError: a latent or a patch that a joint model cannot run with.
    """
    run = OuterSample(*args, **kwargs)
    guider = executor.class_obj
    patcher = guider.model_patcher
    refuse_foreign_patches(patcher.model_options.get("transformer_options", {}))
    sampling = patcher.get_model_object("model_sampling")
    if isinstance(run.sampler, PathSampler):
        run = run._replace(sampler=run.sampler.on(patcher.model.diffusion_model.schedule))
    for one in (patcher, *patcher.get_additional_models_with_key("multigpu")):
        one.model.begin_run(sampling, run.denoise_mask, latent_shapes, run.sampler)
    few, cfg = patcher.model.model_config.distilled, getattr(guider, "cfg", 1.0)
    sentence = needless_work(few, len(run.sigmas) - 1, cfg)
    if sentence is not None:
        notice(sentence)
    given = run.latent_image
    if isinstance(run.sampler, PathSampler):
        run = run._replace(latent_image=_with_noise_in_holes(given, run.noise, latent_shapes))
    guider.conds = {kind: pack_regions(conds, latent_shapes) for kind, conds in guider.conds.items()}
    model = patcher.model
    run = run._replace(callback=model.preview.watch(run.callback, latent_shapes, model.run.alpha))
    to_the_end = float(run.sigmas[-1]) == 0  # before the run: uni_pc changes it in place
    out = executor(*run, latent_shapes=latent_shapes)
    if run.denoise_mask is None or not to_the_end:
        return out
    # A sampler's arithmetic brings masked-out values back only to rounding.
    kept = (run.denoise_mask == 0).to(out.device)
    return torch.where(kept, given.to(out), out)


def _with_noise_in_holes(latent_image: Tensor, noise: Tensor, shapes: list[Any]) -> Tensor:
    """A packed latent with the run's own noise in the pixels whose depth was not measured.

    A path mixes what is given with this noise. A run that goes on without noise finds it there already.
    """
    rgb, depth = comfy.utils.unpack_latents(latent_image, shapes)
    fresh = comfy.utils.unpack_latents(noise, shapes)[1]
    if not (depth.any() and fresh.any()):
        return latent_image
    filled = fill_anew(depth, record_of_stream(depth), fresh)
    return comfy.utils.pack_latents([rgb, filled])[0]


def finish_denoising(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Take the last step for samplers of core that stop short of a clean latent.

    uni_pc's rest is invisible on most models. The depth stream is carried at 1 / A of its size, so there it would be A
    times as strong: 3% of the mean depth at the default tilt.
    """
    guider, sigmas, extra_args, _callback, _noise, latent_image, denoise_mask, *_ = args
    to_the_end, last = float(sigmas[-1]) == 0, float(sigmas[-2])
    out = executor(*args, **kwargs)
    name = getattr(getattr(executor.class_obj, "sampler_function", None), "__name__", "")
    if not to_the_end or name not in (*_UNI_PC, *_DPM_SOLVER):
        return out
    if name in _UNI_PC:
        # Undo the division by 1 - sigma that follows every sampler.
        last, out = _UNI_PC_END, out * (1 - _UNI_PC_END)
    if denoise_mask is not None:
        out = torch.where(denoise_mask == 0, latent_image, out)
    sigma = torch.full((out.shape[0],), last, device=out.device)
    return guider(out, sigma, model_options=extra_args["model_options"], seed=extra_args.get("seed"))


def refuse_foreign_patches(transformer_options: dict[str, Any]) -> None:
    """Patches that were made for other transformers would do nothing here, or harm: say so.

    Raises:
        ValueError: naming the patch.
    """
    if "easycache" in transformer_options and not _is_lazy(transformer_options):
        raise ValueError(
            "EasyCache cannot follow a model with two streams and would lose the depth: use LazyCache on this model"
            " instead, or remove EasyCache."
        )
    for kind in ("patches", "patches_replace"):
        names = sorted(name for name, patches in transformer_options.get(kind, {}).items() if patches)
        if names:
            raise ValueError(
                f"The model carries patches of its blocks ({', '.join(names)}) that were made for other transformers"
                " and cannot act on this one: remove the node that adds them from the model's chain."
            )


def _is_lazy(transformer_options: dict[str, Any]) -> bool:
    """LazyCache keeps its state under the same name; it works on the packed latent, as a whole."""
    return type(transformer_options["easycache"]).__name__.startswith("Lazy")
