"""Filling the holes of views with core's sampler: both streams at once, then the depth once more.

Relies on: core's post-CFG functions, as `.correction` does, ``comfy.utils.pack_latents`` and ``decode`` of a VAE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ...mforce_core.explore.hold import Hold, fill_path
from ...mforce_core.explore.view import Filled, Seen
from ...mforce_core.release import PATCH_SIZE
from ...mforce_core.settings import DEPTH_STEPS, FILL_NOISE, FILL_STEPS
from .core_sampler import IMAGE_TO_DEPTH, JOINT, Settings, sample_latent
from .correction import Correction
from .joint_latent import joint
from .joint_model import check_joint
from .path_plan import PathPlan
from .picture_latent import encode_pictures
from .picture_noise import SEEDS
from .progress import ViewProgress
from .shared_inputs import model_input, seed_input, vae_input


def filling_inputs() -> list[io.Input]:
    """The model and how it fills; the widgets are the fields of `Filling`."""
    return [
        model_input(),
        io.Conditioning.Input("positive", tooltip="What the scene shows; an empty prompt will do."),
        io.Conditioning.Input("negative", tooltip="An empty prompt, which the model was trained with."),
        vae_input(),
        seed_input("Seed of what is made; further views count on from it."),
        io.Int.Input(
            "steps",
            default=0,
            min=0,
            max=1000,
            tooltip=(
                "Sampling steps in which picture and depth are made. 0: 10, or those that a model of few steps is made"
                " for."
            ),
        ),
        io.Float.Input(
            "cfg",
            default=1.0,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="How closely to follow the prompt. 1: no guidance, twice as fast; right for an empty prompt.",
        ),
        io.Float.Input(
            "noise",
            default=FILL_NOISE,
            min=0.05,
            max=1.0,
            step=0.05,
            round=0.01,
            tooltip=(
                "Noise that is put over the background's continuation before the model goes on from it. Less stays"
                " closer to its soft colors, 1 starts from nothing."
            ),
        ),
        io.Int.Input(
            "depth_steps",
            default=DEPTH_STEPS,
            min=0,
            max=1000,
            advanced=True,
            tooltip="Steps in which the depth is made once more from the finished picture. 0: only once.",
        ),
    ]


@dataclass(frozen=True)
class Filling:
    """How views are filled, as the widgets of `filling_inputs` say it."""

    model: Any
    positive: Any
    negative: Any
    vae: Any
    seed: int
    steps: int
    cfg: float
    noise: float
    depth_steps: int

    def __post_init__(self) -> None:
        check_joint(self.model)

    @property
    def first_steps(self) -> int:
        """Steps in which picture and depth are made."""
        few = self.model.model.model_config.distilled
        return self.steps or (FILL_STEPS if few is None else few.steps)

    def progress(self, views: int, after: int = 0) -> ViewProgress:
        """The bar over so many views, and over so many steps after them."""
        return ViewProgress(self.model, views, self.first_steps + self.depth_steps, after)

    def view(self, progress: ViewProgress, seen: Seen, number: int = 0) -> Filled:
        """Fill a view; with a bar of `progress` it is a `mforce_core.explore.walk.Fill`.

        Raises:
            ValueError: its sides are no multiples of 16, or the VAE is another model's.
        """
        seed = (self.seed + number) % SEEDS
        hold = Hold.of(seen, self._encode(seen.color))
        plan = PathPlan.of(
            fill_path(self.noise, 0), self.first_steps, "euler", self.model.model.diffusion_model.schedule
        )
        start = joint(hold.rgb, hold.depth_latents())
        settings = Settings(cfg=self.cfg, plan=plan)
        held, report = self._held(_HeldView(hold)), progress.sampling(number)
        rgb, depth = sample_latent(held, self.positive, self.negative, start, JOINT, settings, seed, progress=report)
        view = seen.finished(self._decode(rgb), hold.depth_of(depth)[0].cpu())
        if self.depth_steps:
            frozen = joint(self._encode(view.color), hold.depth_latents(), freeze_rgb=True)
            guided = self._held(Correction(hold.depth, hold.valid))
            settings = Settings(steps=self.depth_steps)
            report = progress.sampling(number, self.first_steps)
            _, depth = sample_latent(
                guided, self.negative, self.negative, frozen, IMAGE_TO_DEPTH, settings, seed, progress=report
            )
            view = seen.finished(view.color, hold.depth_of(depth)[0].cpu())
        return view

    def _held(self, correction: Any) -> Any:
        guided = self.model.clone()
        guided.set_model_sampler_post_cfg_function(correction)
        return guided

    def _encode(self, color: Tensor) -> Tensor:
        return encode_pictures(self.vae, color[None]).float()

    def _decode(self, rgb: Tensor) -> Tensor:
        return self.vae.decode(rgb)[0].float().cpu()


class _HeldView:
    """A post-CFG function that holds what is known of a view in both streams."""

    def __init__(self, hold: Hold) -> None:
        self.hold = hold

    def __call__(self, args: dict[str, Any]) -> Tensor:
        """The packed clean latent with what is known; ``args`` are core's. On a path depth is carried as it is."""
        clean, model = args["denoised"], args["model"]
        rgb, depth = comfy.utils.unpack_latents(clean, model.latent_shapes)
        held = [self.hold.correct_rgb(rgb), self.hold.correct_depth(depth.float()).to(depth)]
        return comfy.utils.pack_latents(held)[0]


def check_view_size(height: int, width: int) -> None:
    """Raise ValueError unless a view of this size can be filled."""
    if height % PATCH_SIZE or width % PATCH_SIZE:
        raise ValueError(
            f"the geometry is {width}x{height}, and both sides must be multiples of {PATCH_SIZE}; connect the depth"
            " before MF Restore Size."
        )
