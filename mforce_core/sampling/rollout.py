"""Euler rollouts of both streams, each with its own noise levels."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..model.config import Schedule
from ..model.transformer import ModalityForcingTransformer, Modulations
from ..release import CFG, MIN_DEPTH_TIME, MODES, STEPS, Mode
from .cuda_graph import Graph, Recorder, record
from .schedule import rollout_times

#: callback(step, steps, rgb, depth_x0), step from 1: state after the step; raise in it to cancel.
Callback = Callable[[int, int, Tensor, Tensor], None]


class Prediction(NamedTuple):
    """RGB velocity (B, N, Cin) and clean depth (B, N, Cd), float32."""

    rgb_velocity: Tensor
    depth_x0: Tensor


def depth_velocity(depth: Tensor, depth_x0: Tensor, t_depth: Tensor | float) -> Tensor:
    """Velocity eps - x_0 from an x-prediction at noise level t_depth."""
    t = torch.as_tensor(t_depth, dtype=depth.dtype, device=depth.device)
    return (depth - depth_x0) / t.clamp(min=MIN_DEPTH_TIME)


class Denoiser:
    """The model with what all steps of a rollout share: text, guidance, and buffers for its inputs.

    Without ``null_text`` a step is one denoiser call; with it one call on a batch of two, the prompt's half first, and
    classifier-free guidance.

    Args:
        text: (B, T, context_in_dim) on the model's device.
        null_text: features of the empty string, text's shape, or None.
        grid: (h, w) tokens.
        cfg: guidance scale; only with ``null_text``.
        recorder: makes a CUDA graph of a step after the first; None: every step is launched anew.
    """

    def __init__(
        self,
        model: ModalityForcingTransformer,
        text: Tensor,
        null_text: Tensor | None,
        grid: tuple[int, int],
        cfg: float,
        recorder: Recorder | None = None,
    ) -> None:
        self.model, self.grid, self.cfg, self.recorder = model, grid, cfg, recorder
        texts = (text,) if null_text is None else (text, null_text)
        self.halves, dtype = len(texts), model.compute_dtype
        self.text = torch.cat([half.to(dtype) for half in texts])
        tokens = (self.halves, text.shape[0], grid[0] * grid[1])
        self.rgb = self.text.new_empty(*tokens, model.config.in_channels)
        self.depth = self.text.new_empty(*tokens, model.config.depth_channels)
        self.modulations: Modulations | None = None
        self.predicted: Prediction | None = None
        self.graph: Graph | None = None

    def __call__(self, rgb: Tensor, depth: Tensor, modulations: Modulations) -> Prediction:
        """Predict from tokens (B, N, Cin) and (B, N, Cd) of any float type, and the modulations of one step."""
        self.rgb.copy_(rgb)
        self.depth.copy_(depth)
        if self.graph is not None and self.modulations is not None and self.predicted is not None:
            for buffer, vectors in zip(self.modulations, modulations, strict=True):
                if buffer is not None and vectors is not None:
                    buffer.copy_(vectors)
            self.graph.replay()
            return Prediction(*(tensor.clone() for tensor in self.predicted))
        prediction = self._predict(modulations)
        if self.recorder is not None:
            present = {name: part.clone() for name, part in modulations._asdict().items() if part is not None}
            self.modulations = modulations._replace(**present)
            self.graph, self.recorder = self.recorder(self._predict_in_place, self.text.device), None
        return prediction

    def _predict_in_place(self) -> None:
        assert self.modulations is not None
        self.predicted = self._predict(self.modulations)

    def _predict(self, modulations: Modulations) -> Prediction:
        rgb, depth = self.rgb.flatten(0, 1), self.depth.flatten(0, 1)
        velocity, depth_x0 = self.model(rgb, depth, self.text, None, None, self.grid, modulations=modulations)
        velocity, depth_x0 = velocity.float(), depth_x0.float()
        if self.halves == 1:
            return Prediction(velocity, depth_x0)
        (v_cond, v_null), (d_cond, d_null) = velocity.chunk(2), depth_x0.chunk(2)
        return Prediction(v_null + self.cfg * (v_cond - v_null), d_null + self.cfg * (d_cond - d_null))


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
    guidance: float | Tensor | None = None,
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
        guidance: scale for bases that embed one, a number or (B,).
        schedule: timestep shift; the model's own by default.
        callback: called after every step; what it raises ends the rollout.
        cuda_graph: launch every step after the first as one CUDA graph; where none can be made, one line in the log
            says so and the steps run as without it.

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
    shapes = {"rgb": (batch, tokens, config.in_channels), "depth": (batch, tokens, config.depth_channels)}
    frozen = {"i2d": ("rgb", rgb), "d2i": ("depth", depth)}.get(mode, (None, None))
    if mode != "joint" and frozen[1] is None:
        raise ValueError(f"mode {mode} needs the clean {frozen[0]} tokens")
    start = noise or draw_noise(shapes["rgb"], shapes["depth"], seed)
    state = {}
    for name, value in zip(("rgb", "depth"), start, strict=True):
        if name == frozen[0] and frozen[1] is not None:
            value = frozen[1]
        if tuple(value.shape) != shapes[name]:
            raise ValueError(f"{name} tokens must be {shapes[name]}, got {tuple(value.shape)}")
        state[name] = value.to(device, torch.float32)

    text = text.to(device)
    if cfg > 1:
        if null_text is None:
            raise ValueError("cfg above 1 needs null_text, the features of the empty string")
        null_text = null_text.to(text).expand(batch, -1, -1)
    else:
        null_text = None
    if guidance is not None:
        guidance = torch.as_tensor(guidance, dtype=torch.float32, device=device).expand(batch)

    t_rgb, t_depth = rollout_times(steps, mode=mode, log2_alpha=log2_alpha, schedule=schedule or model.schedule)
    modulations = _rollout_modulations(
        model, t_rgb[:-1], t_depth[:-1], None if guidance is None else guidance.repeat(1 if null_text is None else 2)
    )
    rows = modulations.img.shape[0] // steps
    denoise = Denoiser(model, text, null_text, grid, cfg, record if cuda_graph else None)
    for i in range(steps):
        now, after = (t_rgb[i], t_depth[i]), (t_rgb[i + 1], t_depth[i + 1])
        prediction = denoise(state["rgb"], state["depth"], modulations.rows(i * rows, (i + 1) * rows))
        if mode != "i2d":
            state["rgb"] = state["rgb"] + float(after[0] - now[0]) * prediction.rgb_velocity
        if mode != "d2i":
            velocity = depth_velocity(state["depth"], prediction.depth_x0, float(now[1]))
            state["depth"] = state["depth"] + float(after[1] - now[1]) * velocity
        if callback is not None:
            callback(i + 1, steps, state["rgb"], state["depth"] if mode == "d2i" else prediction.depth_x0)
    return state["rgb"], state["depth"]


def _rollout_modulations(
    model: ModalityForcingTransformer, t_rgb: Tensor, t_depth: Tensor, guidance: Tensor | None
) -> Modulations:
    """Modulations of all steps as one batch: a row a step or, where samples differ in guidance (B,), B rows a step."""
    device = next(model.parameters()).device
    t_rgb, t_depth = t_rgb.to(device, torch.float32), t_depth.to(device, torch.float32)
    if guidance is not None:
        steps, batch = len(t_rgb), len(guidance)
        t_rgb, t_depth = t_rgb.repeat_interleave(batch), t_depth.repeat_interleave(batch)
        guidance = guidance.repeat(steps)
    return model.modulations(t_rgb, t_depth, guidance)


def draw_noise(rgb_shape: tuple[int, ...], depth_shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Gaussian starting noise of both streams from one CPU generator, RGB drawn first."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rgb_shape, generator=generator), torch.randn(depth_shape, generator=generator)
