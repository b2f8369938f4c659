"""The scaling study's transformer against a formulation of its own: one sequence, grouped queries, clean latents."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, rms_norm, scaled_dot_product_attention, silu

from mforce.mforce_core import load_model, sample
from mforce.mforce_core.model.config import Architecture, ConfigError, infer_architecture
from mforce.mforce_core.model.transformer import ModalityForcingTransformer
from mforce.mforce_core.weights.checkpoint import save_model
from mforce.mforce_core.weights.header import read_header
from mforce.training.config import RecipeConfig, TrainConfig
from mforce.training.losses import Totals, losses, predict
from mforce.training.noise import Noise
from mforce.training.processes import join
from mforce.training.recipe import Batch
from mforce.training.train import Trainer, train
from tiny_training import config

# One process saving alone is meant.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

SIZES = Architecture(
    in_channels=8,
    depth_channels=16,
    context_in_dim=8,
    hidden_size=64,
    num_heads=4,
    num_kv_heads=2,
    depth_double=0,
    depth_single=3,
    depth_decoder_num_layers=1,
    axes_dim=(4, 4, 4, 4),
    rgb_prediction="clean",
)


def model_of(sizes: Architecture, seed: int = 0) -> ModalityForcingTransformer:
    model = ModalityForcingTransformer(sizes, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.15, generator=generator)
    return model


def inputs(batch: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = (batch, 6, 8), (batch, 6, 16), (batch, 3, 8)
    rgb, depth, text = (torch.randn(shape, generator=generator) for shape in shapes)
    return rgb, depth, text, torch.rand(batch, generator=generator) * 0.8 + 0.1, torch.rand(batch, generator=generator)


def rotated(x: Tensor, positions: Tensor, theta: float = 2000.0) -> Tensor:
    """(B, H, L, D) with pairs turned by position / theta^(2k/4) on each of four axes, by complex numbers."""
    powers = theta ** -(torch.arange(2, dtype=torch.float64) * 2 / 4)
    angles = (positions[:, :, None].double() * powers).flatten(1)  # (L, D / 2)
    pairs = torch.view_as_complex(x.double().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2).float()


def formulated(model: ModalityForcingTransformer, rgb: Tensor, depth: Tensor, text: Tensor, t_rgb, t_depth, grid):
    """Clean latents and depth from the weights alone: PyTorch's grouped-query attention, no call into this project's
    kernels."""
    w = dict(model.named_parameters())

    def embedded(name: str, t: Tensor) -> Tensor:
        frequencies = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(128) / 128)
        angles = t[:, None] * 1000 * frequencies
        sinusoid = torch.cat([angles.cos(), angles.sin()], 1)
        return linear(silu(linear(sinusoid, w[f"{name}.in_layer.weight"])), w[f"{name}.out_layer.weight"])

    vec = embedded("time_in", t_rgb) + w["cross_alpha_img"] * embedded("time_in_depth_to_img", t_depth)
    vec_depth = embedded("time_in_depth", t_depth) + w["cross_alpha_depth"] * embedded("time_in_rgb_to_depth", t_rgb)

    def modulation(name: str, vector: Tensor) -> list[Tensor]:
        return [part[:, None] for part in linear(silu(vector), w[name]).chunk(3, -1)]

    def normed(x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], eps=1e-6)

    def block(name: str, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor, positions: Tensor) -> Tensor:
        q, k, v, a, b = linear(normed(x) * (1 + scale) + shift, w[f"{name}.linear1.weight"]).split(
            [64, 32, 32, 192, 192], -1
        )
        q, k, v = (part.unflatten(-1, (-1, 16)).transpose(1, 2) for part in (q, k, v))  # (B, heads, L, 16)
        q = rotated(rms_norm(q, (16,), w[f"{name}.norm.query_norm.scale"], 1e-6), positions)
        k = rotated(rms_norm(k, (16,), w[f"{name}.norm.key_norm.scale"], 1e-6), positions)
        attended = scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2)
        return x + gate * linear(torch.cat([attended, silu(a) * b], -1), w[f"{name}.linear2.weight"])

    (height, width), count = grid, text.shape[1]
    cells = [[0, row, column, 0] for row in range(height) for column in range(width)]
    positions = torch.tensor(
        [[0, 0, 0, i] for i in range(count)] + cells + [[1, *cell[1:]] for cell in cells], dtype=torch.float32
    )
    x = torch.cat(
        [linear(text, w["txt_in.weight"]), linear(rgb, w["img_in.weight"]), linear(depth, w["depth_in.weight"])], 1
    )
    lengths = [count + rgb.shape[1], depth.shape[1]]
    shared, own = (
        modulation("single_stream_modulation.lin.weight", vec),
        modulation("single_stream_modulation_depth.lin.weight", vec_depth),
    )
    both = [
        torch.cat([a.expand(-1, lengths[0], -1), b.expand(-1, lengths[1], -1)], 1)
        for a, b in zip(shared, own, strict=True)
    ]
    for index in range(3):
        x = block(f"single_blocks.{index}", x, *both, positions)

    def final(name: str, x: Tensor, vector: Tensor) -> Tensor:
        shift, scale = linear(silu(vector), w[f"{name}.adaLN_modulation.1.weight"])[:, None].chunk(2, -1)
        return linear(normed(x) * (1 + scale) + shift, w[f"{name}.linear.weight"])

    clean = final("final_layer", x[:, count : lengths[0]], vec)
    x = x[:, lengths[0] :]
    decoder = modulation("depth_decoder_modulation.lin.weight", vec_depth)
    x = block("depth_decoder_blocks.0", x, *decoder, positions[lengths[0] :])
    return clean, final("depth_final_layer", x, vec_depth)


def test_it_is_the_formulation() -> None:
    model = model_of(SIZES)
    rgb, depth, text, t_rgb, t_depth = inputs()
    velocity, found_depth = model(rgb, depth, text, t_rgb, t_depth, (2, 3))
    clean, wanted_depth = formulated(model, rgb, depth, text, t_rgb, t_depth, (2, 3))
    torch.testing.assert_close(velocity, (rgb - clean) / t_rgb[:, None, None], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found_depth, wanted_depth, rtol=1e-4, atol=1e-4)


def test_no_weight_is_there_in_vain() -> None:
    model = model_of(SIZES)
    rgb, depth, text, t_rgb, t_depth = inputs()
    velocity, found = model(rgb, depth, text, t_rgb, t_depth, (2, 3))
    (velocity.sum() + found.square().sum()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not any(name.startswith("double") for name, _ in model.named_parameters())


def test_the_loss_of_rgb_has_the_gradient_of_equation_9() -> None:
    """|(x_t - x0_hat) / t - v|^2, averaged over a sample, by autograd on the formulation."""
    model = model_of(SIZES)
    rgb, depth, text, t_rgb, t_depth = inputs()
    noise = Noise(t_rgb, t_depth, torch.randn(rgb.shape), torch.randn(depth.shape))
    batch = Batch(rgb, depth.abs().clamp(0.1, 1.9), text, (2, 3))
    recipe = RecipeConfig(depth_loss_weight=0, distillation_high=0, distillation_low=0)
    found = losses(predict(model, None, batch, noise), batch, noise, recipe, Totals(2, 1.0), {}).terms["rgb"]
    ours = torch.autograd.grad(found, model.single_blocks[1].linear1.weight)[0]
    t = t_rgb[:, None, None]
    noisy = (1 - t) * rgb + t * noise.rgb
    noisy_depth = torch.lerp(batch.depth, noise.depth, t_depth[:, None, None])
    clean, _ = formulated(model, noisy, noisy_depth, text, t_rgb, t_depth, (2, 3))
    by_hand = ((((noisy - clean) / t) - (noise.rgb - rgb)) ** 2).mean()
    theirs = torch.autograd.grad(by_hand, model.single_blocks[1].linear1.weight)[0]
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_as_many_heads_of_keys_is_the_plain_attention() -> None:
    """Grouped keys and values, written out for every head, are the plain model with the same result."""
    grouped = model_of(replace(SIZES, rgb_prediction="velocity"))
    plain = model_of(replace(SIZES, rgb_prediction="velocity", num_kv_heads=0))
    state = plain.state_dict()
    for name, tensor in grouped.state_dict().items():
        if name.endswith("linear1.weight"):
            q, k, v, rest = tensor.split([64, 32, 32, 384])
            k, v = (part.unflatten(0, (2, 16)).repeat_interleave(2, 0).flatten(0, 1) for part in (k, v))
            tensor = torch.cat([q, k, v, rest])
        state[name].copy_(tensor)
    rgb, depth, text, t_rgb, t_depth = inputs()
    for ours, theirs in zip(
        grouped(rgb, depth, text, t_rgb, t_depth, (2, 3)), plain(rgb, depth, text, t_rgb, t_depth, (2, 3)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_folder_says_what_its_tensors_cannot(tmp_path: Path) -> None:
    model = model_of(SIZES)
    save_model(model, tmp_path, dtype=torch.float32)
    assert read_header(tmp_path).architecture == SIZES
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert infer_architecture(shapes) == replace(SIZES, rgb_prediction="velocity")
    rgb, depth, text, t_rgb, t_depth = inputs()
    with torch.no_grad():
        opened, own = (one(rgb, depth, text, t_rgb, t_depth, (2, 3))[0] for one in (load_model(tmp_path), model))
    assert torch.equal(opened, own)
    for wrong, message in (
        ({"num_kv_heads": 3}, "divisible by num_kv_heads"),
        ({"rgb_prediction": "x"}, "velocity or"),
    ):
        with pytest.raises(ConfigError, match=message):
            Architecture.from_dict(SIZES.to_dict() | wrong)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_the_sampler_steps_on_implied_velocities(cfg: float) -> None:
    """Two Euler steps by hand, from the formulation; modulations made before the rollout bring the noise level."""
    model = model_of(SIZES)
    _, _, text, *_ = inputs(1)
    null, noise = torch.zeros_like(text), (torch.randn(1, 6, 8), torch.randn(1, 6, 16))
    rgb, depth = sample(model, text, (2, 3), mode="joint", steps=2, cfg=cfg, null_text=null, noise=noise, log2_alpha=0)
    times = [1.0, torch.e**1.1 / (torch.e**1.1 + 1), 0.0]
    x, y = noise
    for now, after in pairwise(times):
        t = torch.tensor([now], dtype=torch.float32)
        guided = []
        for part in zip(*(formulated(model, x, y, kind, t, t, (2, 3)) for kind in (text, null)), strict=True):
            guided.append(part[0] if cfg == 1 else part[1] + cfg * (part[0] - part[1]))
        x = x + (after - now) * (x - guided[0]) / now
        y = y + (after - now) * (y - guided[1]) / now
    torch.testing.assert_close(rgb, x, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(depth, y, rtol=1e-3, atol=1e-3)


FLAT = {
    "architecture.depth_double": 0,
    "architecture.depth_single": 2,
    "architecture.num_kv_heads": 1,
    "architecture.rgb_prediction": "clean",
}


def test_both_stages_train_also_from_nothing(data: Path, tmp_path: Path) -> None:
    train(config("t2i", data, tmp_path / "t2i", **FLAT))
    undistilled = {"recipe.distillation_high": 0, "recipe.distillation_low": 0, "recipe.depth_start": "paper"}
    train(config("mf", data, tmp_path / "mf", base=tmp_path / "t2i" / "model", **FLAT))
    assert load_model(tmp_path / "mf" / "model").config.rgb_prediction == "clean"
    values = config("mf", data, tmp_path / "zero", base="later", **FLAT, **undistilled).model_dump()
    trainer = Trainer(TrainConfig.model_validate(values | {"base": None}), join("cpu"))
    trainer.train_step()
    assert trainer.measures()["depth"] > 0
    trainer.close()
    with pytest.raises(ValueError, match="needs a base"):
        TrainConfig.model_validate(config("mf", data, tmp_path, **FLAT).model_dump() | {"base": None})
    other = FLAT | {"architecture.rgb_prediction": "velocity", "base": tmp_path / "t2i" / "model"}
    with pytest.raises(ConfigError, match=r"rgb_prediction is velocity, but the base .* has clean"):
        train(config("mf", data, tmp_path / "other", **other))
