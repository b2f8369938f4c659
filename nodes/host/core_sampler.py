"""Everything MF Sampler does: the task of a joint latent, and one or more runs of a core sampler over it.

Relies on: ``comfy.samplers`` (CFGGuider, sampler_object, KSampler's schedules) and
``latent_preview.prepare_callback``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.nested_tensor import NestedTensor
from torch import Tensor

from ...mforce_core.model.config import Schedule
from ...mforce_core.release import CFG, LOG2_ALPHA, MIN_DEPTH_TIME, STEPS, Mode
from ...mforce_core.sampling.schedule import rollout_times
from ...mforce_core.sampling.solvers import SOLVERS
from .joint_latent import JointLatent, Latent, freeze_mask, split
from .joint_model import check_joint
from .noise_levels import JointModelSampling
from .notices import notice
from .path_plan import PathPlan, control_path
from .path_sampler import PathSampler
from .picture_noise import with_picture_noise
from .starting_noise import NEVER, batch_seeds, draw_noise

AUTO = "auto"
JOINT: Mode = "joint"
IMAGE_TO_DEPTH: Mode = "i2d"
DEPTH_TO_IMAGE: Mode = "d2i"
RELEASED = "released"

#: The node whose latent a mode starts from.
_STARTS: dict[str, str] = {
    JOINT: "MF Empty Latent",
    IMAGE_TO_DEPTH: "MF Image to Depth Latent",
    DEPTH_TO_IMAGE: "MF Depth to Image Latent",
}

Progress = Callable[[int, Any, Any, int], None]


@dataclass(frozen=True)
class Settings:
    """Options of a rollout.

    ``cfg`` is for joint and d2i, ``depth_cfg`` for i2d and the refining pass; ``denoise`` below 1 starts from the
    latent's content at a part of the noise. With ``control_strength`` below 1 a given stream is followed less strictly.
    ``plan`` is a path with its solver, in place of steps, tilt, sampler and scheduler.
    """

    steps: int = STEPS
    cfg: float = CFG["joint"]
    depth_cfg: float = CFG["i2d"]
    log2_alpha: float = LOG2_ALPHA
    sampler_name: str = "euler"
    scheduler: str = RELEASED
    denoise: float = 1.0
    control_strength: float = 1.0
    plan: PathPlan | None = None

    def on_the_way_of(self, mode: Mode, schedule: Schedule) -> Settings:
        """These settings with the plan that a mode needs: control short of full strength is one of its own, on the
        model's schedule.

        Raises:
            ValueError: settings that do not go together.
        """
        if self.plan is not None:
            if self.denoise < 1:
                raise ValueError("denoise below 1 does not go with a path; set start_rgb or start_depth of MF Path.")
            if advice := self.plan.advice(mode):
                notice(f"MF Sampler: {advice}")
            return replace(self, plan=self.plan.on(schedule))
        if self.control_strength == 1 or mode == JOINT:
            return self
        if self.denoise < 1 or self.scheduler != RELEASED or self.sampler_name not in SOLVERS:
            raise ValueError(
                f"control_strength below 1 needs denoise 1, the scheduler {RELEASED} and one of the samplers"
                f" {', '.join(SOLVERS)}."
            )
        return replace(self, plan=control_path(mode, self.control_strength, self.steps, self.sampler_name, schedule))

    def refining(self, schedule: Schedule) -> Settings:
        """Those of the second pass, image to depth from pure noise: where there is a plan, its steps and its solver."""
        if self.plan is None:
            return replace(self, denoise=1.0)
        return replace(self, plan=control_path(IMAGE_TO_DEPTH, 1.0, self.plan.steps, self.plan.solver, schedule))

    @property
    def run_steps(self) -> int:
        """Steps of one run."""
        return self.steps if self.plan is None else self.plan.path.steps


@dataclass(frozen=True)
class Task:
    """What a joint latent asks for: one of the three modes, and its streams (B, C, h, w)."""

    mode: Mode
    rgb: Tensor
    depth: Tensor
    noise_mask: Any = None


def read_task(latent: Latent, mode: str) -> Task:
    """Find the task of a joint LATENT, in mode "auto" from the streams that its noise mask freezes.

    Raises:
        ValueError: another kind of latent, or one that does not hold what the mode needs.
    """
    rgb, depth = split(latent)
    mask = latent.get("noise_mask")
    frozen = [not part.any() for part in mask.unbind()] if mask is not None and mask.is_nested else [False] * 2
    if mode == AUTO:
        if all(frozen):
            raise ValueError("both streams of the latent are frozen, so there is nothing to sample.")
        return Task(IMAGE_TO_DEPTH if frozen[0] else DEPTH_TO_IMAGE if frozen[1] else JOINT, rgb, depth, mask)
    for name, kept, given in (("picture", frozen[0], IMAGE_TO_DEPTH), ("depth", frozen[1], DEPTH_TO_IMAGE)):
        if kept and mode != given:
            raise ValueError(
                f"mode {mode} would make the {name} anew, which the latent keeps as it is; set mode to auto, or connect"
                f" {_STARTS[mode]}."
            )
    if mode == JOINT:
        if mask is not None:
            notice("MF Sampler: mode joint makes all of the picture anew; to keep what the mask protects, use auto.")
        return Task(JOINT, rgb, depth)
    if not (rgb if mode == IMAGE_TO_DEPTH else depth).any():
        raise ValueError(f"mode {mode} needs something to start from; connect {_STARTS[mode]} to the latent input.")
    return _frozen(IMAGE_TO_DEPTH if mode == IMAGE_TO_DEPTH else DEPTH_TO_IMAGE, rgb, depth)


def run(
    model: Any,
    positive: Any,
    negative: Any,
    task: Task,
    noise: NestedTensor,
    settings: Settings,
    seeds: Sequence[int],
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Sample a task with core's CFGGuider.

    Args:
        model: ModelPatcher of a :class:`JointDiffusion`.
        noise: nested like the latent.
        seeds: of the noise that the sampler adds while it runs, one a picture.
        progress: callback(step, x0, x, total steps), as core's samplers call it.

    Returns:
        (rgb, depth), float32; a frozen stream comes back unchanged.
    """
    alone = task.mode != JOINT
    patched = model.clone()
    schedule = model.model.diffusion_model.schedule
    floor = MIN_DEPTH_TIME if settings.scheduler == RELEASED else 0.0
    sampling = JointModelSampling(schedule, 0.0 if alone else settings.log2_alpha, min_depth_time=floor)
    patched.add_object_patch("model_sampling", sampling)
    guider = comfy.samplers.CFGGuider(patched)
    guider.set_conds(positive, negative)
    guider.set_cfg(settings.depth_cfg if task.mode == IMAGE_TO_DEPTH else settings.cfg)
    if settings.plan is None:
        sampler = with_picture_noise(comfy.samplers.sampler_object(settings.sampler_name), seeds)
        sigmas = _sigmas(patched, task.mode, settings)
    else:
        sampler = PathSampler(settings.plan, seeds)
        sigmas = sampler.sigmas
    samples = guider.sample(
        noise,
        NestedTensor([task.rgb, task.depth]),
        sampler,
        sigmas,
        denoise_mask=task.noise_mask,
        callback=progress,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seeds[0],
    )
    rgb, depth = samples.unbind()
    return rgb.to(task.rgb.device), depth.to(task.depth.device)


def _sigmas(model: Any, mode: Mode, settings: Settings) -> Tensor:
    """Noise levels of the stream that is denoised, from the release's schedule or one of core's."""
    name, steps = settings.sampler_name, settings.steps
    if settings.scheduler != RELEASED:
        core = comfy.samplers.KSampler(
            model, steps, model.load_device, name, settings.scheduler, denoise=settings.denoise
        )
        return core.sigmas
    # Below 1, the last of as many steps as the whole way would take at this spacing.
    whole = max(steps, int(steps / settings.denoise))
    # Core gives these samplers one more step and drops the last but one noise level.
    discard = name in comfy.samplers.KSampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS
    schedule = model.model.diffusion_model.schedule
    t_rgb, t_depth = rollout_times(whole + discard, mode=mode, schedule=schedule)
    sigmas = t_depth if mode == IMAGE_TO_DEPTH else t_rgb
    if discard:
        sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
    return sigmas[-(steps + 1) :]


def sample_latent(
    model: Any,
    positive: Any,
    negative: Any,
    latent: Latent,
    mode: str,
    settings: Settings,
    seed: int,
    refine_depth: bool = False,
    same_noise: str = NEVER,
    progress: Progress | None = None,
) -> tuple[Tensor, Tensor]:
    """Everything MF Sampler does: task, noise, one run, and for joint tasks another that refines the depth.

    ``same_noise`` is an option of `.starting_noise`; ``progress`` stands in for its own bar.

    Raises:
        ValueError: inputs that do not fit together.
    """
    check_joint(model)
    latent = JointLatent(latent)  # alive while it is sampled, so that the run finds what it says about its depth
    task = read_task(latent, mode)
    schedule = model.model.diffusion_model.schedule
    settings = settings.on_the_way_of(task.mode, schedule)
    first = _missing_content(task, settings)
    refine = refine_depth and task.mode == JOINT
    seeds = batch_seeds(latent, task.mode, seed, same_noise)
    noise = draw_noise(task.rgb, task.depth, seeds)
    whole = settings.refining(schedule)
    total = settings.run_steps + whole.run_steps * (refine + (first is not None))
    report = progress or latent_preview.prepare_callback(model, total)
    done = 0

    def sample_one(task: Task, settings: Settings) -> tuple[Tensor, Tensor]:
        nonlocal done

        def advance(step: int, x0: Any, x: Any, _steps: int) -> None:
            report(done + step, x0, x, total)

        streams = run(model, positive, negative, task, noise, settings, seeds, advance)
        done += settings.run_steps
        return streams

    if first is not None:
        content = sample_one(first, whole)
        task = replace(task, rgb=content[0], depth=content[1])
    rgb, depth = sample_one(task, settings)
    if refine:
        depth = sample_one(_refining(task, rgb), whole)[1]
    return rgb, depth


def _frozen(mode: Mode, rgb: Tensor, depth: Tensor) -> Task:
    """The task of one stream from the other, whole."""
    mask = freeze_mask(rgb, depth, freeze_rgb=mode == IMAGE_TO_DEPTH, freeze_depth=mode == DEPTH_TO_IMAGE)
    return Task(mode, rgb, depth, mask)


def _refining(task: Task, rgb: Tensor) -> Task:
    """Depth once more for the finished picture, where the joint task was to make depth."""
    whole = _frozen(IMAGE_TO_DEPTH, rgb, torch.zeros_like(task.depth))
    if task.noise_mask is None or not task.noise_mask.is_nested:
        return whole
    mask = NestedTensor([whole.noise_mask.unbind()[0], task.noise_mask.unbind()[1]])
    return replace(whole, depth=task.depth, noise_mask=mask)


def _missing_content(task: Task, settings: Settings) -> Task | None:
    """With ``denoise`` below 1 both streams start from content: the task that makes what one of them lacks.

    Raises:
        ValueError: there is nothing to start from.
    """
    if settings.denoise >= 1:
        return None
    has_rgb, has_depth = bool(task.rgb.any()), bool(task.depth.any())
    if task.mode == JOINT and has_rgb != has_depth:
        return _frozen(IMAGE_TO_DEPTH if has_rgb else DEPTH_TO_IMAGE, task.rgb, task.depth)
    if not (has_rgb and has_depth):
        raise ValueError(
            "denoise below 1 starts from the latent's content, and this latent has none in the stream that is"
            " to be made: set denoise to 1, or connect MF Merge Latent with the picture and its depth."
        )
    return None
