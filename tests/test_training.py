"""The training recipe and loop at a tiny size: masks, losses, resuming, export, refusals."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mforce.mforce_core import load_model
from mforce.mforce_core.config import ConfigError
from mforce.mforce_core.depth_codec import unpatchify
from mforce.mforce_core.text import WordTextEncoder
from mforce.training.config import RecipeConfig, read_train_config
from mforce.training.initialize import build, initialize_from_base
from mforce.training.latents import LatentDataset
from mforce.training.recipe import (
    Batch,
    depth_loss,
    depth_tokens,
    draw_noise,
    noisy_depth,
    sparse_mask,
)
from mforce.training.train import Trainer, learning_rate, train

CONFIGS = Path(__file__).parent.parent / "training" / "configs"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 random latents of a 2x2 grid with 32x32 depth, and a word table."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "rgb": torch.randn(24, 128, 2, 2, generator=generator).half(),
        "depth": (torch.rand(24, 32, 32, generator=generator) * 3 + 1).half(),
    }
    captions = [f"a {colour} cube" for colour in ("red", "green", "blue")] * 8
    save_file(tensors, folder / "latents-00000.safetensors", metadata={"captions": json.dumps(captions)})
    WordTextEncoder.random(["a", "red", "green", "blue", "cube"], 128, 4).save(folder / "text_encoder.safetensors")
    return folder


def config(stage: str, data: Path, out: Path, *more: str):
    overrides = [
        f"out={out}",
        f"text_encoder={data}",
        f"data.latents={data}",
        "architecture.hidden_size=64",
        "architecture.num_heads=2",
        "architecture.axes_dim=[8, 8, 8, 8]",
        "architecture.depth_single=1",
        "steps=4",
        "batch_size=4",
        "precision=float32",
        "compile=false",
        "optimizer.warmup_steps=1",
        "optimizer.cooldown_steps=1",
        *more,
    ]
    return read_train_config(CONFIGS / f"nano-{stage}.toml", overrides)


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("t2i")
    train(config("t2i", data, out))
    return out / "model"


def batch_of(clean: torch.Tensor) -> Batch:
    return Batch(torch.zeros(clean.shape[0], 4, 8), clean, torch.zeros(clean.shape[0], 3, 5), (2, 2))


def test_masked_depth_loss_has_no_gradient_on_invalid_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    recipe = RecipeConfig(sparse_probability=1.0)
    clean = depth_tokens(torch.rand(6, 32, 32) + 1, recipe, 16, generator).flatten(1, 2)
    assert (clean == 0).any()
    prediction = torch.randn(clean.shape, requires_grad=True)
    t_depth = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5, 0.0])
    for weighting in ("uniform", "relative"):
        (gradient,) = torch.autograd.grad(depth_loss(prediction, clean, t_depth, weighting), prediction)
        counted = (clean > 0) & (t_depth > 0)[:, None, None]
        assert (gradient[~counted] == 0).all()
        assert (gradient[counted] != 0).all()


def test_relative_weighting_is_the_relative_error_of_depth() -> None:
    """d(z) with dz/dd from autograd, on both branches of the contraction, for errors small enough to be linear."""
    from mforce.mforce_core.depth_codec import contract

    depth = torch.tensor([0.3, 0.8, 1.5, 4.0], dtype=torch.float64)
    clean = contract(depth)[None, None]
    prediction = contract(depth * 1.001)[None, None]
    loss = depth_loss(prediction, clean, torch.ones(1), "relative")
    assert float(loss.sqrt()) == pytest.approx(0.001, rel=5e-3)


def test_missing_pixels_are_noise_at_every_time() -> None:
    clean = torch.tensor([[[0.0, 1.5]]])
    noise = torch.tensor([[[-0.7, 0.4]]])
    for t, expected in ((0.0, 1.5), (0.5, 0.95), (1.0, 0.4)):
        noisy = noisy_depth(clean, noise, torch.tensor([t]))
        assert noisy[0, 0].tolist() == pytest.approx([-0.7, expected])


def test_task_mix() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = batch_of(torch.ones(2000, 2, 2, 4))
    noise = draw_noise(batch, RecipeConfig(), generator)
    i2d, d2i = noise.t_rgb == 0, noise.t_depth == 0
    assert not (i2d & d2i).any()
    assert float(i2d.float().mean()) == pytest.approx(0.2, abs=0.04)
    assert float(d2i.float().mean()) == pytest.approx(0.2, abs=0.04)
    rest = noise.t_rgb[~i2d]
    assert float(torch.logit(rest).mean()) == pytest.approx(1.1, abs=0.1)
    assert float(torch.logit(rest).std()) == pytest.approx(1.0, abs=0.1)


def test_sparse_masks_keep_something_and_come_in_three_kinds() -> None:
    masks = sparse_mask((300, 32, 32), 1.0, torch.Generator().manual_seed(0))
    assert masks.flatten(1).any(1).all()
    rows_whole = masks.all(2) | ~masks.any(2)
    scan_lines = rows_whole.all(1)
    dropped = masks.flatten(1).float().mean(1) > 0.5
    assert 0.2 < float(scan_lines.float().mean()) < 0.47
    assert float((~scan_lines & ~dropped).float().mean()) > 0.2
    assert sparse_mask((5, 8, 8), 0.0, torch.Generator()).all()


def test_batches_are_a_function_of_the_step(data: Path) -> None:
    dataset = LatentDataset(data, WordTextEncoder.random(["red"], 4, 4))
    seen = torch.cat([dataset.batch_indices(step, 5, seed=3) for step in range(5)])[:24]
    assert sorted(seen.tolist()) == list(range(24))
    assert torch.equal(dataset.batch_indices(4, 5, seed=3), dataset.batch_indices(4, 5, seed=3))
    assert not torch.equal(dataset.batch_indices(0, 5, seed=3), dataset.batch_indices(0, 5, seed=4))


def test_a_resumed_run_continues_the_curve(data: Path, base: Path, tmp_path: Path) -> None:
    straight = Trainer(config("mf", data, tmp_path / "a", f"base={base}"))
    curve = [straight.train_step() for _ in range(4)]

    first = config("mf", data, tmp_path / "b", f"base={base}")
    first.out.mkdir()
    before = Trainer(first)
    halves = [before.train_step() for _ in range(2)]
    before.save()
    after = Trainer(first)
    assert after.step == 2
    halves += [after.train_step() for _ in range(2)]
    assert halves == curve
    for name, tensor in straight.average.items():
        assert torch.equal(after.average[name], tensor)


def test_stage_two_starts_from_stage_one(base: Path) -> None:
    source = load_model(base, dtype=torch.float32)
    architecture = source.config.to_dict() | {
        "depth_channels": 256,
        "depth_decoder_num_layers": 1,
        "cross_stream_timestep_mixing": True,
    }
    model = build(type(source.config).from_dict(architecture), torch.float32)
    initialize_from_base(model, source, seed=0)
    state = model.state_dict()
    for name, tensor in source.state_dict().items():
        assert torch.equal(state[name], tensor), name
    for depth, image in (
        ("double_blocks.0.depth_attn.qkv.weight", "double_blocks.0.img_attn.qkv.weight"),
        ("time_in_depth.in_layer.weight", "time_in.in_layer.weight"),
        ("single_stream_modulation_depth.lin.weight", "single_stream_modulation.lin.weight"),
    ):
        assert torch.equal(state[depth], state[image])
    assert float(state["cross_alpha_img"]) == float(state["cross_alpha_depth"]) == 0
    # Without depth the student is its base, whatever the new weights are.
    rgb, text, t = torch.randn(1, 4, 128), torch.randn(1, 4, 128), torch.rand(1)
    with torch.no_grad():
        ours, theirs = (m(rgb, None, text, t, None, (2, 2))[0] for m in (model, source))
    torch.testing.assert_close(ours, theirs)


def test_the_loss_of_one_scene_falls(data: Path, base: Path, tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.mkdir()
    tensors = {"rgb": torch.randn(1, 128, 2, 2).half(), "depth": torch.rand(1, 32, 32).half() + 1}
    save_file(tensors, one / "latents-00000.safetensors", metadata={"captions": json.dumps(["a red cube"])})
    settings = [f"base={base}", f"data.latents={one}", "batch_size=16", "steps=150", "recipe.sparse_probability=0"]
    settings += ["optimizer.learning_rate=3e-3", "recipe.distillation_high=0", "recipe.distillation_low=0"]
    trainer = Trainer(config("mf", data, tmp_path / "out", *settings))
    losses = [trainer.train_step() for _ in range(150)]
    for name, share in (("rgb", 0.5), ("depth", 0.15)):
        start = sum(entry[name] for entry in losses[:5]) / 5
        end = sum(entry[name] for entry in losses[-10:]) / 10
        assert end < share * start, (name, start, end)


def test_finished_run_leaves_a_model_that_opens(base: Path) -> None:
    assert not load_model(base).config.has_depth
    log = (base.parent / "log.jsonl").read_text()
    assert log == ""  # four steps, fewer than one log interval
    assert (base.parent / "state.safetensors").exists()
    assert unpatchify(torch.zeros(1, 2, 2, 256)).shape == (1, 32, 32)


def test_learning_rate_warms_up_and_cools_down(data: Path, tmp_path: Path) -> None:
    optimizer = config(
        "t2i", data, tmp_path, "optimizer.warmup_steps=4", "optimizer.cooldown_steps=5", "optimizer.learning_rate=1.0"
    ).optimizer
    rates = [learning_rate(step, 20, optimizer) for step in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[14:] == pytest.approx([1.0, 1.0, 0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_size=0", "batch_size: Input should be greater than 0"),
        ("learning_rat=1", "learning_rat: Extra inputs are not permitted"),
        ("recipe.probability_i2d=0.9", "exceeds 1"),
        ("architecture.num_heads=3", "not divisible"),
        ("stage=t2i", "depth_channels = 0"),
    ],
)
def test_bad_configurations_name_the_key(data: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config("mf", data, tmp_path, override)


def test_missing_latents_say_what_to_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mforce\.training\.latents"):
        train(config("t2i", data, tmp_path / "out", f"data.latents={tmp_path}"))
