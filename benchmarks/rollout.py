"""A whole joint rollout with guidance: what a person waits for, without text encoder and autoencoder."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..mforce_core.model.transformer import ModalityForcingTransformer
from ..mforce_core.release import CFG, LOG2_ALPHA
from ..mforce_core.sampling.rollout import sample
from ..mforce_core.sampling.schedule import rollout_times
from ..mforce_core.sampling.solvers import depth_velocity
from . import op_by_op
from .subjects import Subject
from .timing import compare


def measure_rollout(
    subject: Subject, device: torch.device, dtype: torch.dtype, steps: int, repeats: int
) -> dict[str, Any]:
    """``formulations``: rows as :func:`.timing.compare` makes them, with ``seconds_per_step``."""
    model = subject.model(device, dtype)
    noise_rgb, noise_depth, text = subject.inputs(device)
    null_text = torch.randn_like(text)
    ours = partial(
        sample,
        model,
        text,
        subject.grid,
        steps=steps,
        cfg=CFG["joint"],
        log2_alpha=LOG2_ALPHA,
        null_text=null_text,
        noise=(noise_rgb, noise_depth),
    )
    runs: dict[str, Callable[[], object]] = {"mforce": ours}
    if device.type == "cuda":
        runs["mforce CUDA graph"] = partial(ours, cuda_graph=True)
    runs["op_by_op"] = partial(_op_by_op, model, subject, (noise_rgb, noise_depth), text, null_text, steps)
    rows = compare(runs, device, repeats)
    for row in rows:
        if "seconds" in row:
            row["seconds_per_step"] = row["seconds"]["median"] / steps
    return {
        "architecture": subject.name,
        "tokens": [subject.text, subject.image, subject.image],
        "steps": steps,
        "cfg": CFG["joint"],
        "formulations": rows,
    }


@torch.no_grad()
def _op_by_op(
    model: ModalityForcingTransformer,
    subject: Subject,
    noise: tuple[Tensor, Tensor],
    text: Tensor,
    null_text: Tensor,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """The same rollout with nothing prepared before the loop."""
    rgb, depth = noise
    times = torch.stack(rollout_times(steps, log2_alpha=LOG2_ALPHA), dim=1)
    for now, after in pairwise(times):
        t_rgb, t_depth = now.to(rgb.device)[:, None].expand(-1, 2)
        velocity, depth_x0 = op_by_op.forward(
            model,
            torch.cat((rgb, rgb)),
            torch.cat((depth, depth)),
            torch.cat((text, null_text)),
            t_rgb,
            t_depth,
            subject.grid,
        )
        (v_cond, v_null), (d_cond, d_null) = velocity.float().chunk(2), depth_x0.float().chunk(2)
        rgb = rgb + float(after[0] - now[0]) * (v_null + CFG["joint"] * (v_cond - v_null))
        clean = d_null + CFG["joint"] * (d_cond - d_null)
        depth = depth + float(after[1] - now[1]) * depth_velocity(depth, clean, float(now[1]))
    return rgb, depth
