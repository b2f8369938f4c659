"""Train one stage: ``python -m mforce.training.train CONFIG.toml [--set section.key=value ...]``.

Run again with the same configuration to go on from the last saved step; SIGTERM or Ctrl-C saves and stops. Every random
draw is a function of (seed, step), so a resumed run continues the curve of an uninterrupted one.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..mforce_core import load_model, load_text_encoder
from ..mforce_core.checkpoint import save_model
from ..mforce_core.config import ConfigError
from ..mforce_core.transformer import ModalityForcingTransformer
from .checkpoint import load_state, save_state
from .config import OptimizerConfig, TrainConfig, read_train_config
from .initialize import build, initialize, initialize_from_base
from .latents import LatentDataset
from .recipe import Batch, depth_tokens, draw_noise, losses


def build_optimizers(model: torch.nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al., 2024) orthogonalises updates of the blocks' matrices; everything else takes AdamW."""
    blocks: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        in_block = "blocks." in name and parameter.ndim == 2 and config.name == "muon"
        (blocks if in_block else rest).append(parameter)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            rest, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay, foreach=True
        )
    ]
    if blocks:
        muon = getattr(torch.optim, "Muon", None)
        if muon is None:
            raise ConfigError(f"optimizer muon needs torch 2.9 or newer, this is {torch.__version__}; use adamw")
        # With RMS matching the learning rate means the same as AdamW's.
        optimizers.append(
            muon(
                blocks,
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Warm-up, constant, linear cool-down to zero over the last ``cooldown_steps``."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cool = min(1.0, (steps - step) / max(1, config.cooldown_steps))
    return config.learning_rate * min(warm, cool)


def start_model(config: TrainConfig) -> tuple[ModalityForcingTransformer, ModalityForcingTransformer | None]:
    """The student and, for stage mf, its frozen text-to-image teacher."""
    precision = getattr(torch, config.precision)
    model = build(config.sizes(), precision)
    if config.base is None:  # stage t2i
        initialize(model, config.seed)
        return model.to(config.device), None
    base = load_model(config.base, dtype=torch.float32)
    initialize_from_base(model, base, config.seed)
    teacher = load_model(config.base, device=config.device, dtype=precision)
    return model.to(config.device), teacher


class Trainer:
    """State of a run: everything that a step reads or writes."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.text_encoder = load_text_encoder(config.text_encoder)
        self.data = LatentDataset(config.data.latents, self.text_encoder)
        self.model, self.teacher = start_model(config)
        self.average = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.optimizers = build_optimizers(self.model, config.optimizer)
        self.step = load_state(config.out, self.model, self.average, self.optimizers)
        compiled: Callable = torch.compile if config.compile else lambda module: module
        self.forward = compiled(self.model)
        self.teacher_forward = None if self.teacher is None else compiled(self.teacher)

    def batch(self, generator: torch.Generator) -> Batch:
        config, data = self.config, self.data
        rows = data.batch_indices(self.step, config.batch_size, config.seed)
        latents = data.rgb[rows].float()
        ids = data.token_ids[rows]
        dropped = torch.rand(len(rows), generator=generator) < config.data.caption_dropout
        ids = torch.where(dropped[:, None], self.text_encoder.tokenize([""]), ids)
        depth = None
        if config.stage == "mf":
            depth = depth_tokens(data.depth[rows], config.recipe, self.model.config.depth_patch_size, generator)
        tokens = latents.flatten(2).transpose(1, 2).contiguous()
        return Batch(tokens, depth, self.text_encoder.table[ids], (latents.shape[2], latents.shape[3]))

    def forward_losses(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        batch = self.batch(generator)
        noise = draw_noise(batch, self.config.recipe, generator)
        device = self.config.device
        return losses(self.forward, self.teacher_forward, _to(batch, device), _to(noise, device), self.config.recipe)

    def train_step(self) -> dict[str, float]:
        """One optimiser step; returns the losses, the gradient norm and the learning rate."""
        rate = learning_rate(self.step, self.config.steps, self.config.optimizer)
        terms = self.forward_losses()
        torch.stack(list(terms.values())).sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(
            self.model.parameters(), self.config.optimizer.gradient_clip, foreach=True
        )
        if not torch.isfinite(norm):
            raise FloatingPointError(
                f"the gradient is not finite at step {self.step}; the last saved state is in {self.config.out}"
            )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        decay = min(self.config.optimizer.ema_decay, self.step / (self.step + 10))
        torch._foreach_lerp_(list(self.average.values()), list(self.model.state_dict().values()), 1 - decay)
        return {name: term.item() for name, term in terms.items()} | {
            "gradient_norm": norm.item(),
            "lr": rate,
        }

    def save(self) -> None:
        """Write the resumable state and the averaged weights as a model folder."""
        save_state(self.config.out, self.step, self.model, self.average, self.optimizers)
        averaged = ModalityForcingTransformer(self.model.config, dtype=torch.float32)
        averaged.load_state_dict(self.average)
        save_model(averaged, self.config.out / "model", dtype=torch.bfloat16)


def _to(values, device: str):
    """Move the tensors of a named tuple."""
    return type(values)(*(v.to(device) if isinstance(v, Tensor) else v for v in values))


def train(config: TrainConfig) -> None:
    """Run a stage to its last step, or until SIGTERM."""
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "config.json").write_text(config.model_dump_json(indent=1) + "\n")
    trainer = Trainer(config)
    stop = False

    def request_stop(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    count = sum(p.numel() for p in trainer.model.parameters())
    print(f"{config.stage}: {count / 1e6:.2f} M parameters, {len(trainer.data)} images, from step {trainer.step}")
    started, images = time.perf_counter(), 0
    with (config.out / "log.jsonl").open("a") as log:
        while trainer.step < config.steps and not stop:
            entry: dict[str, float] = trainer.train_step()
            images += config.batch_size
            if trainer.step % config.log_every == 0:
                elapsed = time.perf_counter() - started
                entry = {"step": trainer.step} | entry | {"seconds": elapsed, "images_per_second": images / elapsed}
                line = json.dumps({k: float(f"{v:.6g}") for k, v in entry.items()})
                print(line, file=log, flush=True)
                print(line, flush=True)
            if trainer.step % config.save_every == 0:
                trainer.save()
    trainer.save()
    print(f"saved step {trainer.step} of {config.steps} in {config.out}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    args = parser.parse_args()
    try:
        train(read_train_config(args.config, args.overrides))
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
