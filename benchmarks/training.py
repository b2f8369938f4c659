"""Training steps against a plain PyTorch loop: ``python -m mforce.benchmarks.training [--compile] [--out FILE.json]``.

Both train the architecture of nano with the same losses on random data: the project's :class:`..training.train.Trainer`
as it is, and a loop that draws its noise for the whole batch at once, runs the model op by op (:mod:`.op_by_op`), and
steps the same AdamW and the same moving average. Steps alternate in one process, so that whatever else the machine
does meets both; the ratio is of medians.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..mforce_core.checkpoint import save_model
from ..mforce_core.config import Architecture
from ..mforce_core.depth_codec import encode_depth
from ..mforce_core.text import WordTextEncoder
from ..mforce_core.transformer import ModalityForcingTransformer
from ..training.config import TrainConfig, read_train_config
from ..training.processes import join
from ..training.train import Trainer
from . import op_by_op

GRID = (8, 8)


def write_inputs(folder: Path, samples: int) -> None:
    """Random latents with depth, a word table, and a base to start from."""
    sizes = read_train_config(Path("nano-t2i"), []).sizes()
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randn(samples, sizes.in_channels, *GRID, generator=generator)
    depth = torch.rand(samples, 16 * GRID[0], 16 * GRID[1], generator=generator) * 3 + 1
    captions = json.dumps(["red"] * samples)
    save_file({"rgb": rgb.half(), "depth": depth.half()}, folder / "latents-0.safetensors", {"captions": captions})
    WordTextEncoder.random(["red"], sizes.context_in_dim, 16).save(folder / "text_encoder.safetensors")
    save_model(ModalityForcingTransformer(sizes), folder / "base")


def configuration(folder: Path, *, batch_size: int, compiled: bool, device: str) -> TrainConfig:
    values: dict[str, object] = {
        "out": folder / "out",
        "base": folder / "base",
        "text_encoder": folder,
        "data.latents": folder,
    }
    values |= {"batch_size": batch_size, "device": device, "compile": str(compiled).lower(), "precision": "float32"}
    values |= {"recipe.distillation_high": 0, "recipe.distillation_low": 0, "recipe.sparse_probability": 0}
    values |= {"optimizer.name": "adamw"}
    return read_train_config(Path("nano-mf"), [f"{key}={value}" for key, value in values.items()])


class PlainLoop:
    """What one writes first."""

    def __init__(self, sizes: Architecture, config: TrainConfig) -> None:
        self.model = ModalityForcingTransformer(sizes, device=config.device)
        forward: Callable = partial(op_by_op.forward, self.model)
        self.forward = torch.compile(forward) if config.compile else forward
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.optimizer.learning_rate)

    def step(self, rgb: Tensor, depth: Tensor, text: Tensor) -> None:
        batch = len(rgb)
        t_rgb, t_depth = torch.sigmoid(1.1 + torch.randn(2, batch, device=rgb.device))
        clean = encode_depth(depth).flatten(1, 2)
        noise_rgb, noise_depth = torch.randn_like(rgb), torch.randn_like(clean)
        noisy_rgb = torch.lerp(rgb, noise_rgb, t_rgb[:, None, None])
        noisy_depth = torch.lerp(clean, noise_depth, t_depth[:, None, None])
        velocity, depth_x0 = self.forward(noisy_rgb, noisy_depth, text, t_rgb, t_depth, GRID)
        error = (depth_x0 - clean) / torch.minimum(clean, 2 - clean).clamp(min=0.1)
        loss = (velocity - (noise_rgb - rgb)).square().mean() + error.square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self.average[name].lerp_(parameter, 1e-3)
        loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, 64)
        config = configuration(folder, batch_size=args.batch_size, compiled=args.compile, device=args.device)
        trainer = Trainer(config, join(args.device))
        plain = PlainLoop(config.sizes(), config)
        data = trainer.source

        def plain_step(step: int) -> None:
            rgb, depth, text = data.batch(step, slice(0, config.batch_size))
            assert depth is not None
            tokens = rgb.flatten(2).transpose(1, 2).contiguous()
            plain.step(*(tensor.to(args.device) for tensor in (tokens, depth, text)))

        seconds: dict[str, list[float]] = {"ours": [], "plain": []}
        for step in range(args.steps + 2):  # two to warm up
            for kind, run in (("ours", trainer.train_step), ("plain", partial(plain_step, step))):
                started = time.perf_counter()
                run()
                seconds[kind].append(time.perf_counter() - started)
        trainer.close()
    medians = {kind: statistics.median(values[2:]) for kind, values in seconds.items()}
    result = {
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "compile": args.compile,
        "batch_size": args.batch_size,
        "median_seconds": medians,
        "plain_over_ours": medians["plain"] / medians["ours"],
        "images_per_second": args.batch_size / medians["ours"],
        "seconds": seconds,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
