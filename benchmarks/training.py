"""Training steps against a plain PyTorch loop on the same architecture, losses and data.

Ours is the :class:`..training.train.Trainer` as ``mforce train`` runs it, on samples that lie on disk. The
other draws its noise for the whole batch at once, runs the model op by op (:mod:`.op_by_op`) under autocast, and steps
the same AdamW and the same moving average.
"""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..mforce_core.depth.codec import encode_depth
from ..mforce_core.encoders.words import WordTextEncoder
from ..mforce_core.model.tokens import latents_to_tokens, patches_to_tokens
from ..mforce_core.model.transformer import ModalityForcingTransformer
from ..mforce_core.release import SHIFT_MU
from ..mforce_core.weights.checkpoint import save_model
from ..training import plan
from ..training.config import TrainConfig
from ..training.config_file import read_train_config
from ..training.processes import join
from ..training.train import Trainer
from . import op_by_op
from .peak_memory import on_gpu
from .timing import compare

#: What is trained, and samples of a batch, by kind of device.
PRESETS = {"cuda": ("klein-4b", 4), "cpu": ("nano-mf", 16)}

#: What makes a preset small enough for 80 GB: 0.7 billion parameters. All contestants have their weights, optimizer
#: state and average on the device at once, 11 GB each, and the plain loop keeps more activations than ours.
_SMALLER: dict[str, dict[str, object]] = {
    "klein-4b": {
        "trainable": "all",
        "architecture.hidden_size": 2048,
        "architecture.num_heads": 16,
        "architecture.depth_double": 1,
        "architecture.depth_single": 5,
        "architecture.depth_decoder_num_layers": 1,
    }
}

#: Samples on disk.
_SAMPLES = 32


def measure_training_step(
    device: torch.device, dtype: torch.dtype, repeats: int, matmul_rate: float, compiled: bool
) -> dict[str, Any]:
    """``formulations``: rows as :func:`.timing.compare` makes them, with ``images_per_second``, ``tokens_per_second``
    and ``model_flops_utilization``: the operations of the matrix products, forward and backward, a second, as a share
    of ``matmul_rate``. On a GPU ``peak_bytes`` is what our step allocates at most with its state.
    """
    preset, batch_size = PRESETS["cuda" if device.type == "cuda" else "cpu"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = partial(_configuration, preset, folder, batch_size, str(device), dtype)
        plain_config = config(compiled=False)
        _write_inputs(folder, plain_config)
        trainers = {"mforce": Trainer(plain_config, join(str(device)))}
        peak = {"peak_bytes": on_gpu(trainers["mforce"].train_step, device)} if device.type == "cuda" else {}
        if compiled:
            trainers["mforce compiled"] = Trainer(config(compiled=True), join(str(device)))
        runs: dict[str, Callable[[], object]] = {kind: trainer.train_step for kind, trainer in trainers.items()}
        data = trainers["mforce"].source
        runs["plain"] = PlainLoop(plain_config, data, device).step
        if compiled:
            runs["plain compiled"] = PlainLoop(config(compiled=True), data, device).step
        rows = compare(runs, device, repeats)
        for trainer in trainers.values():
            trainer.close()
    cost = plan.plan(plain_config, plan.count_costs(plain_config), processes=1)
    for row in rows:
        row |= peak if row["name"] == "mforce" else {}
        if "seconds" in row:
            seconds = row["seconds"]["median"]
            row["images_per_second"] = batch_size / seconds
            row["tokens_per_second"] = cost.tokens / seconds
            row["model_flops_utilization"] = cost.flops / seconds / matmul_rate
    return {
        "preset": preset,
        "parameters": sum(p.numel() for p in trainers["mforce"].model.parameters()),
        "batch_size": batch_size,
        "tokens": cost.tokens,
        "operations": cost.flops,
        "formulations": rows,
    }


def _configuration(
    preset: str, folder: Path, batch_size: int, device: str, dtype: torch.dtype, *, compiled: bool
) -> TrainConfig:
    """The preset with what both loops can do: no teacher, dense depth, AdamW, one forward pass that keeps all."""
    values: dict[str, object] = {
        "out": folder / ("compiled" if compiled else "eager"),
        "base": folder / "base",
        "text_encoder": folder,
        "data.latents": folder,
        "data.on_device": "false",
        "batch_size": batch_size,
        "device": device,
        "precision": str(dtype).removeprefix("torch."),
        "compile": str(compiled).lower(),
        "optimizer.name": "adamw",
        "scale.micro_batch_size": batch_size,
        "scale.checkpoint_activations": "false",
    }
    values |= {"recipe.distillation_high": 0, "recipe.distillation_low": 0, "recipe.sparse_probability": 0}
    values |= _SMALLER.get(preset, {})
    return read_train_config(Path(preset), [f"{key}={value}" for key, value in values.items()])


def _write_inputs(folder: Path, config: TrainConfig) -> None:
    """Random latents with depth, a word table, and a base to start from."""
    sizes, (height, width) = config.sizes(), plan.tokens_of(config)
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randn(_SAMPLES, sizes.in_channels, height, width, generator=generator)
    depth = torch.rand(_SAMPLES, *config.data.size, generator=generator) * 3 + 1
    captions = json.dumps(["red"] * _SAMPLES)
    save_file({"rgb": rgb.half(), "depth": depth.half()}, folder / "latents-0.safetensors", {"captions": captions})
    words = WordTextEncoder.random(["red"], sizes.context_in_dim, config.data.text_tokens)
    words.save(folder / "text_encoder.safetensors")
    save_model(ModalityForcingTransformer(sizes, dtype=torch.bfloat16), folder / "base", dtype=torch.bfloat16)


class PlainLoop:
    """What one writes first."""

    def __init__(self, config: TrainConfig, data: Any, device: torch.device) -> None:
        self.config, self.data, self.device, self.done = config, data, device, 0
        self.model = ModalityForcingTransformer(config.sizes(), device=device, dtype=torch.float32)
        forward: Callable = partial(op_by_op.forward, self.model)
        self.forward = torch.compile(forward) if config.compile else forward
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.optimizer.learning_rate)

    def step(self) -> None:
        rgb, depth, text = self.data.batch(self.done, slice(0, self.config.batch_size))
        self.done += 1
        grid = rgb.shape[2], rgb.shape[3]
        tokens = latents_to_tokens(rgb).contiguous()
        self._step(tokens.to(self.device), depth.to(self.device), text.to(self.device), grid)

    def _step(self, rgb: Tensor, depth: Tensor, text: Tensor, grid: tuple[int, int]) -> None:
        t_rgb, t_depth = torch.sigmoid(SHIFT_MU + torch.randn(2, len(rgb), device=self.device))
        clean = patches_to_tokens(encode_depth(depth))
        noise_rgb, noise_depth = torch.randn_like(rgb), torch.randn_like(clean)
        noisy_rgb = torch.lerp(rgb, noise_rgb, t_rgb[:, None, None])
        noisy_depth = torch.lerp(clean, noise_depth, t_depth[:, None, None])
        narrow = getattr(torch, self.config.precision)
        with torch.autocast(self.device.type, narrow, enabled=narrow != torch.float32):
            velocity, depth_x0 = self.forward(noisy_rgb, noisy_depth, text, t_rgb, t_depth, grid)
        error = (depth_x0.float() - clean) / torch.minimum(clean, 2 - clean).clamp(min=0.1)
        loss = (velocity.float() - (noise_rgb - rgb)).square().mean() + error.square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self.average[name].lerp_(parameter, 1e-3)
        loss.item()
