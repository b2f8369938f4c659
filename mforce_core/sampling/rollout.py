"""Euler rollouts of both streams, each with its own noise levels."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ..model.config import Schedule
from ..model.transformer import ModalityForcingTransformer
from ..release import CFG, MODES, STEPS, Mode
from .denoiser import Denoiser
from .schedule import Levels, rollout_times
from .solvers import euler_step

#: callback(step, steps, rgb, depth_x0), step from 1: state after the step; raise in it to cancel.
Callback = Callable[[int, int, Tensor, Tensor], None]


@torch.no_grad()
def sample(
    model: ModalityForcingTransformer,
    text: Tensor,
    grid: tuple[int, int],
    *,
    mode: Mode = "joint",
    steps: int = STEPS,
    cfg: float | None = None,
    log2_alpha: float | None = None,
    null_text: Tensor | None = None,
    rgb: Tensor | None = None,
    depth: Tensor | None = None,
    noise: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
    guidance: float | None = None,
    schedule: Schedule | None = None,
    callback: Callback | None = None,
    cuda_graph: bool = False,
) -> tuple[Tensor, Tensor]:
    """Denoise RGB and depth tokens together, or one of them given the other.

    Args:
        model: from :func:`..load_model`; noise and state stay float32 on its device whatever its dtype.
        text: text features of the prompts, (B, T, context_in_dim).
        grid: (h, w) tokens.
        mode: "joint" (text -> RGB + depth), "i2d" (RGB -> depth) or "d2i" (depth -> RGB).
        steps: Euler steps.
        cfg: classifier-free guidance scale; above 1 it doubles the cost and needs ``null_text``. None: the release's
            default of the mode (4, 1, 4).
        log2_alpha: tilt of joint mode; the release uses 5 (RGB first), None leaves depth on its own shift.
        null_text: features of the empty string, (1 or B, T, context_in_dim).
        rgb: clean RGB tokens (B, N, in_channels), for i2d.
        depth: clean depth tokens (B, N, depth_channels), for d2i.
        noise: starting noise (rgb, depth) in the tokens' shapes; None draws it from ``seed``.
        seed: of a CPU generator, so a seed gives the same noise on every device.
        guidance: scale for bases that embed one.
        schedule: timestep shift; the model's own by default.
        callback: called after every step; what it raises ends the rollout.
        cuda_graph: launch steps as one CUDA graph, which the model keeps for further rollouts of this shape; where none
            can be made, one line in the log says so and the steps run as without it.

    Returns:
        (rgb, depth) clean tokens, float32; the frozen stream comes back unchanged.

    Raises:
        ValueError: missing or misshapen inputs, non-finite noise levels or scales.
    """
    config = model.config
    if not config.has_depth:
        raise ValueError("this checkpoint is a text-to-image base without a depth stream; train one on it first")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    cfg = CFG[mode] if cfg is None else cfg
    if not 0 <= cfg < float("inf"):
        raise ValueError(f"cfg must be a finite number of at least 0, got {cfg}")
    device = next(model.parameters()).device
    batch, tokens = text.shape[0], grid[0] * grid[1]
    rgb_state, depth_state = noise or draw_noise(
        (batch, tokens, config.in_channels), (batch, tokens, config.depth_channels), seed
    )
    if mode == "i2d":
        if rgb is None:
            raise ValueError("mode i2d needs the clean rgb tokens")
        rgb_state = rgb
    elif mode == "d2i":
        if depth is None:
            raise ValueError("mode d2i needs the clean depth tokens")
        depth_state = depth
    for name, state, channels in (
        ("rgb", rgb_state, config.in_channels),
        ("depth", depth_state, config.depth_channels),
    ):
        if tuple(state.shape) != (batch, tokens, channels):
            raise ValueError(f"{name} tokens must be {(batch, tokens, channels)}, got {tuple(state.shape)}")
    rgb_state, depth_state = rgb_state.to(device, torch.float32), depth_state.to(device, torch.float32)

    text = text.to(device)
    if cfg > 1:
        if null_text is None:
            raise ValueError("cfg above 1 needs null_text, the features of the empty string")
        null_text = null_text.to(text).expand(batch, -1, -1)
    else:
        null_text = None
    schedule = schedule or model.schedule
    t_rgb, t_depth = rollout_times(steps, mode=mode, log2_alpha=log2_alpha, schedule=schedule)
    levels = [Levels(*pair) for pair in zip(t_rgb.tolist(), t_depth.tolist(), strict=True)]
    # Of all steps at once: they depend on the noise levels alone.
    scales = None if guidance is None else torch.full((steps,), guidance, device=device)
    modulations = model.modulations(t_rgb[:-1].to(device), t_depth[:-1].to(device), scales)
    denoise = Denoiser(model, text, null_text, grid, cfg, cuda_graph=cuda_graph)
    for step, (now, after) in enumerate(pairwise(levels)):
        predicted = denoise(rgb_state, depth_state, modulations.rows(step, step + 1))
        rgb_state, depth_state = euler_step(rgb_state, depth_state, predicted, now, after)
        if callback is not None:
            callback(step + 1, steps, rgb_state, depth_state if mode == "d2i" else predicted.depth_x0)
    return rgb_state, depth_state


def draw_noise(rgb_shape: tuple[int, ...], depth_shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Gaussian starting noise of both streams from one CPU generator, RGB drawn first."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rgb_shape, generator=generator), torch.randn(depth_shape, generator=generator)
