"""What a stage minimizes, as one call from a batch and its draws to losses."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .config import TrainConfig
from .denoisers import GuidedTeacher
from .distillation import Distillation
from .losses import Denoiser, Losses, Term, Totals, losses, predict
from .matching import Matching
from .noise import Noise
from .recipe import Batch

#: (batch, its noise or jumps, totals of the step) -> this batch's share of the losses.
Objective = Callable[[Batch, Any, Totals], Losses]


def objective(
    config: TrainConfig,
    student: Denoiser,
    teacher: Denoiser | None,
    critic: Denoiser | None,
    null_text: Tensor,
    terms: Mapping[str, Term],
) -> Objective:
    """Flow matching with what the recipe adds to it, or few-step distillation.

    Args:
        teacher: None where nothing is distilled.
        critic: None where no distributions are matched.
        null_text: (T, D) features of the empty caption.
        terms: the user's losses.
    """
    if config.stage == "distill":
        assert teacher is not None
        chosen = config.distillation
        guided = GuidedTeacher(teacher, null_text, guided=chosen.guided(embeds=config.sizes().use_guidance_embed))
        return Distillation(
            student,
            guided,
            config.recipe,
            student_finishes=chosen.teacher_share < 1,
            trajectory_weight=chosen.trajectory_weight,
            data_weight=chosen.data_weight,
            matching=None if critic is None else Matching(guided, critic, config.recipe, chosen.matching_weight),
        )

    def flow_matching(batch: Batch, noise: Noise, totals: Totals) -> Losses:
        prediction = predict(student, teacher, batch, noise)
        return losses(prediction, batch, noise, config.recipe, totals, terms)

    return flow_matching
