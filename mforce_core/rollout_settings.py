"""From settings to what a rollout takes: its path through the noise levels and its guidance."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from .model.config import Architecture, Distilled, Schedule
from .release import MODES
from .sampling.guidance import Guidance
from .sampling.path import PURE_NOISE, NoisePath
from .sampling.path_spec import PathSpec
from .settings import Settings

#: How many times its own steps a model of few steps may take without a remark.
_MANY = 2


def path_of(settings: Settings, schedule: Schedule) -> NoisePath:
    """The path that settings ask for, on a model's schedule.

    Raises:
        ValueError: the path cannot be read, starts where there is nothing to start from, or ends in noise.
    """
    try:
        path = _spec_of(settings).build(settings.steps, schedule)
    except ValueError as error:
        raise ValueError(f"`path` cannot be used: {error}.") from None
    streams = (
        ("picture", path.rgb, "i2d", settings.image_strength, "start_image"),
        ("depth map", path.depth, "d2i", settings.depth_strength, "start_depth"),
    )
    for name, levels, given, strength, start in streams:
        if settings.mode == given:
            continue
        if levels[0] < PURE_NOISE and strength is None:
            raise ValueError(
                f"`path` starts with the {name} at noise level {levels[0]:g}, and there is none to start from: begin "
                f"it at 1, or give a `{start}`."
            )
        if levels[-1] > 0:
            raise ValueError(f"`path` ends with the {name} at noise level {levels[-1]:g}: end it at 0.")
    return path


def check_path(settings: Settings) -> None:
    """Raise the errors of :func:`path_of` before a model is loaded."""
    path_of(settings, Schedule())


def _spec_of(settings: Settings) -> PathSpec:
    strengths = {"start_rgb": settings.image_strength, "start_depth": settings.depth_strength}
    starts: dict[str, Any] = {
        name: strength for name, strength in strengths.items() if strength is not None and strength < 1
    }
    spec = _whole_path(settings)
    if any(getattr(spec, name) is not None for name in starts):
        raise ValueError("it has a start of its own, which the strength of the start decides: leave it out of the path")
    return replace(spec, **starts)


def _whole_path(settings: Settings) -> PathSpec:
    """The path as from pure noise."""
    if settings.path is not None:
        return PathSpec.parse(settings.path)
    if settings.mode != "joint":
        return PathSpec(settings.mode, log2_alpha=settings.follow)
    return PathSpec("shifts") if settings.tilt is None else PathSpec("tilt", log2_alpha=settings.tilt)


def guidance_of(settings: Settings) -> Guidance:
    """Classifier-free guidance as settings ask for it."""
    interval = (0.0, 1.0) if settings.cfg_interval is None else settings.cfg_interval
    return Guidance(settings.cfg, interval, settings.cfg_rescale, settings.cfg_parallel)


def fitted(settings: Settings, distilled: Distilled | None, given: Collection[str]) -> Settings:
    """Settings with what a model of few steps needs, where a person asked for nothing else: its number of steps, its
    solver, no guidance and, in joint mode, its path.

    Args:
        distilled: of the model; None changes nothing.
        given: names of the settings that were asked for.
    """
    if distilled is None:
        return settings
    changes: dict[str, Any] = {}
    if "steps" not in given:
        changes["steps"] = distilled.steps_of(settings.mode)
    if "cfg" not in given:
        changes["cfg"] = 1.0
    if "sampler" not in given:
        changes["sampler"] = distilled.sampler
    if settings.mode == "joint" and not {"tilt", "path"} & set(given):
        changes |= {"tilt": None, "path": distilled.path}
    return replace(settings, **changes)


def check_guidance(config: Architecture, settings: Settings) -> None:
    """Raises ValueError where a model wants a guidance scale as an input and the settings have none."""
    if config.use_guidance_embed and settings.guidance is None:
        raise ValueError("This model embeds a guidance scale: give one with `guidance`, for example 4.")


def needless_work(distilled: Distilled | None, steps: int, cfg: float) -> str | None:
    """A sentence where a model made for few steps without guidance is to take guidance, or many more steps."""
    if distilled is None:
        return None
    others = f" ({distilled.exceptions})" if distilled.exceptions else ""
    made_for = f"This model was made for {distilled.steps} steps without guidance{others}"
    if cfg > 1:
        return (
            f"{made_for}: a cfg of {cfg:g} doubles the time and exaggerates what the model does by itself; set it to 1."
        )
    most = max(map(distilled.steps_of, MODES))
    if steps > _MANY * most:
        return f"{made_for}: {steps} take longer and are not what it learned."
    return None


def idle_guidance(settings: Settings) -> str | None:
    """A sentence where guidance is to be tempered, and there is none."""
    asked = {
        "cfg_interval": settings.cfg_interval is not None,
        "cfg_rescale": settings.cfg_rescale != 0,
        "cfg_parallel": settings.cfg_parallel != 1,
    }
    names = [name for name, wanted in asked.items() if wanted]
    if settings.cfg > 1 or not names:
        return None
    verb = "tempers" if len(names) == 1 else "temper"
    return f"{' and '.join(names)} {verb} guidance, and a cfg of {settings.cfg:g} has none: nothing changes."
