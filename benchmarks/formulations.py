"""One denoise step, formulated in different ways on the same weights and inputs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..mforce_core.model.transformer import ModalityForcingTransformer
from ..mforce_core.sampling.denoiser import Denoiser, kept_graphs
from ..mforce_core.sampling.guidance import Guidance
from ..mforce_core.sampling.schedule import Levels
from . import op_by_op
from .subjects import Subject

Step = Callable[[], object]

_LEVELS = Levels(0.7, 0.4)


def steps(
    subject: Subject, model: ModalityForcingTransformer, device: torch.device, compiled: bool = False
) -> dict[str, Step]:
    """Steps by name, run without gradients; ``compiled`` adds those under ``torch.compile``."""
    rgb, depth, text = subject.inputs(device)
    t_rgb, t_depth = torch.tensor([[level] for level in _LEVELS], device=device)
    inputs = rgb, depth, text, t_rgb, t_depth, subject.grid
    runs: dict[str, Step] = {"mforce": partial(model, *inputs), "op_by_op": partial(op_by_op.forward, model, *inputs)}
    if device.type == "cuda":
        runs["mforce CUDA graph"] = partial(_replayed, {}, model, *inputs)
    if compiled:
        runs["mforce compiled"] = partial(torch.compile(model, dynamic=False), *inputs)
        runs["op_by_op compiled"] = partial(torch.compile(op_by_op.forward, dynamic=False), model, *inputs)
    return {name: torch.no_grad()(run) for name, run in runs.items()}


def _replayed(kept: dict[str, Denoiser], model: ModalityForcingTransformer, *inputs: Any) -> object:
    """A step from a graph, recorded at the first call, modulations made before."""
    rgb, depth, text, t_rgb, t_depth, grid = inputs
    modulations = model.modulations(t_rgb, t_depth)
    if not kept:
        kept["denoiser"] = Denoiser(model, text, None, grid, Guidance(1.0), cuda_graph=True)
        kept["denoiser"](rgb, depth, modulations, levels=_LEVELS, level=_LEVELS.rgb)
        if not kept_graphs(model):
            raise RuntimeError("no graph can be made")
    return kept["denoiser"](rgb, depth, modulations, levels=_LEVELS, level=_LEVELS.rgb)
