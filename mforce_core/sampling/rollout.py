"""Rollouts of a model: both streams from noise or content along a path of noise levels."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..model.block_cache import BlockCache
from ..model.config import Schedule
from ..model.transformer import ModalityForcingTransformer
from ..release import CFG, MODES, STEPS, Mode
from .denoiser import Denoiser
from .guidance import Guidance, Prediction
from .integrate import Callback, Given, integrate, noised
from .noise import NoiseSource
from .path import PURE_NOISE, NoisePath
from .schedule import Levels, rollout_times
from .solvers import Streams, clean_values


@torch.no_grad()
def sample(
    model: ModalityForcingTransformer,
    text: Tensor,
    grid: tuple[int, int],
    *,
    mode: Mode = "joint",
    steps: int = STEPS,
    cfg: float | Guidance | None = None,
    log2_alpha: float | None = None,
    null_text: Tensor | None = None,
    rgb: Tensor | None = None,
    depth: Tensor | None = None,
    noise: tuple[Tensor, Tensor] | None = None,
    seed: int | Sequence[int] = 0,
    guidance: float | None = None,
    schedule: Schedule | None = None,
    path: NoisePath | None = None,
    solver: str = "euler",
    callback: Callback | None = None,
    block_cache: BlockCache | None = None,
    cuda_graph: bool = False,
    correct: Callable[[Streams], Streams] | None = None,
) -> tuple[Tensor, Tensor]:
    """Denoise RGB and depth tokens together, or one of them given the other.

    Args:
        model: from :func:`..load_model`; noise and state stay float32 on its device whatever its dtype.
        text: text features of the prompts, (B, T, context_in_dim).
        grid: (h, w) tokens.
        mode: "joint" (text -> RGB + depth), "i2d" (RGB -> depth) or "d2i" (depth -> RGB).
        steps: of the release's path; a ``path`` has its own.
        cfg: classifier-free guidance, its scale or with what tempers it; above 1 it doubles the cost and needs
            ``null_text``. None: the release's default of the mode (4, 1, 4).
        log2_alpha: tilt of joint mode; the release uses 5 (RGB first), None leaves depth on its own shift.
        null_text: features of the empty string, (1 or B, T, context_in_dim).
        rgb: clean RGB tokens (B, N, in_channels), for i2d; or where the path starts below 1, what it starts from.
        depth: clean depth tokens (B, N, depth_channels), for d2i; or as ``rgb``.
        noise: starting noise (rgb, depth) in the tokens' shapes; None draws it from ``seed``.
        seed: of a CPU generator, so a seed gives the same noise on every device; or one for each of the batch.
        guidance: scale for bases that embed one.
        schedule: timestep shift; the model's own by default.
        path: noise levels of both streams, from :meth:`.path_spec.PathSpec.build`; instead of ``steps``,
            ``log2_alpha`` and ``schedule``. The stream that i2d or d2i is given is mixed with noise to its own levels
            on the path (see :func:`.integrate.integrate`): a path that leaves it at 0 freezes it.
        solver: "euler" (the release's), "heun", "dpmpp_2m" or "euler_ancestral".
        callback: called after every step; what it raises ends the rollout.
        block_cache: a new one, to leave out most blocks in steps in which they would add nearly what they added before:
            faster, and near the result without it.
        cuda_graph: launch steps as one CUDA graph, which the model keeps for further rollouts of this shape; where none
            can be made, one line in the log says so and the steps run as without it.
        correct: called with every prediction of the clean tokens; the solver goes on with what it returns. So what is
            known of the result can be held.

    Returns:
        (rgb, depth) clean tokens, float32; a given stream comes back unchanged.

    Raises:
        ValueError: missing or misshapen inputs, non-finite noise levels or scales.
    """
    config = model.config
    if not config.has_depth:
        raise ValueError("this checkpoint is a text-to-image base without a depth stream; train one on it first")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    cfg = CFG[mode] if cfg is None else cfg
    guiding = cfg if isinstance(cfg, Guidance) else Guidance(cfg)
    if path is None:
        path = NoisePath(*rollout_times(steps, mode=mode, log2_alpha=log2_alpha, schedule=schedule or model.schedule))
    device = next(model.parameters()).device
    batch, tokens = text.shape[0], grid[0] * grid[1]
    shapes = (batch, tokens, config.in_channels), (batch, tokens, config.depth_channels)
    source = NoiseSource(seed)
    drawn = source.draw(shapes[0]), source.draw(shapes[1])  # also beside given noise: what follows is the seed's then
    rgb_noise, depth_noise = noise or drawn
    rgb_noise = _as_state("rgb", rgb_noise, shapes[0], device)
    depth_noise = _as_state("depth", depth_noise, shapes[1], device)
    rgb = None if rgb is None else _as_state("rgb", rgb, shapes[0], device)
    depth = None if depth is None else _as_state("depth", depth, shapes[1], device)
    if mode == "i2d" and rgb is None:
        raise ValueError("mode i2d needs the clean rgb tokens")
    if mode == "d2i" and depth is None:
        raise ValueError("mode d2i needs the clean depth tokens")
    given = Given(rgb if mode == "i2d" else None, depth if mode == "d2i" else None)
    state = Streams(
        rgb_noise if given.rgb is not None else _start("rgb", path.rgb[0], rgb, rgb_noise),
        depth_noise if given.depth is not None else _start("depth", path.depth[0], depth, depth_noise),
    )

    text = text.to(device)
    if guiding.scale > 1:
        if null_text is None:
            raise ValueError("cfg above 1 needs null_text, the features of the empty string")
        null_text = null_text.to(text).expand(batch, -1, -1)
    else:
        null_text = None
    # Of all steps at once: they depend on the noise levels alone. The model is asked about the last levels only where
    # they are not clean, by solvers that look ahead.
    levels = path.levels
    asked = path.steps + any(levels[-1])
    t_rgb, t_depth = (times[:asked].to(device) for times in path.tensors())
    scales = None if guidance is None else torch.full((asked,), guidance, device=device)
    modulations = model.modulations(t_rgb, t_depth, scales)
    denoise = Denoiser(model, text, null_text, grid, guiding, cache=block_cache, cuda_graph=cuda_graph)

    def predict(state: Streams, number: int) -> Prediction:
        now = levels[number]
        level = now.depth if mode == "i2d" else now.rgb
        predicted = denoise(*state, modulations.rows(number, number + 1), levels=now, level=level)
        return predicted if correct is None else _corrected(predicted, correct, state, now)

    return integrate(predict, state, path, given=given, solver=solver, fresh=source.like, callback=callback)


def _corrected(predicted: Prediction, correct: Callable[[Streams], Streams], state: Streams, now: Levels) -> Prediction:
    clean = correct(clean_values(state, predicted, now))
    velocity = (state.rgb - clean.rgb) / now.rgb if now.rgb else predicted.rgb_velocity
    return Prediction(velocity, clean.depth)


def _as_state(name: str, tokens: Tensor, shape: tuple[int, ...], device: torch.device) -> Tensor:
    if tuple(tokens.shape) != shape:
        raise ValueError(f"{name} tokens must be {shape}, got {tuple(tokens.shape)}")
    return tokens.to(device, torch.float32)


def _start(name: str, level: float, clean: Tensor | None, noise: Tensor) -> Tensor:
    """The first state of a stream that is denoised."""
    if level >= PURE_NOISE:
        return noise
    if clean is None:
        raise ValueError(f"the path starts with {name} at noise level {level:g}: give the {name} tokens to start from")
    return noised(clean, noise, level)
