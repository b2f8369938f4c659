"""Batches, jumps and objectives of few-step distillation at the smallest size, for tests."""

import torch
from torch import Tensor

from mforce.training.config import RecipeConfig
from mforce.training.denoisers import GuidedTeacher
from mforce.training.distillation import Distillation
from mforce.training.jumps import Jumps
from mforce.training.recipe import Batch

GRID = (2, 2)

#: Of a model that takes a guidance scale as an input.
SCALED = {"architecture.use_guidance_embed": "true"}


def batch_of(count: int, generator: torch.Generator) -> Batch:
    """Random latents, captions and dense depth for the tiny model."""
    depth = torch.rand(count, 4, 16, generator=generator) * 1.8 + 0.1
    rgb, text = (torch.randn(count, length, 8, generator=generator) for length in (4, 2))
    return Batch(rgb, depth, text, GRID)


def jumps_of(levels: list[tuple[float, float]], batch: Batch, generator: torch.Generator, cfg: float) -> Jumps:
    """The same jump for every row."""
    count = len(batch.rgb)
    noise = (torch.randn(tokens.shape, generator=generator) for tokens in (batch.rgb, batch.depth))
    table = torch.tensor(levels).expand(count, -1, -1)
    return Jumps(*noise, table, torch.full((count,), cfg), torch.zeros(count, dtype=torch.bool))


def distillation(student, teacher, null_text: Tensor, **more) -> Distillation:
    values = {"recipe": RecipeConfig(depth_weighting="uniform"), "student_finishes": False} | more
    guided = values.pop("guided", True)
    return Distillation(student, GuidedTeacher(teacher, null_text, guided=guided), **values)
