"""The training recipe and loop at a tiny size: masks, losses, resuming, export, refusals."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mforce.kernels import attention
from mforce.mforce_core import load_model, load_text_encoder, sample
from mforce.mforce_core.encoders.words import WordTextEncoder
from mforce.mforce_core.model import blocks
from mforce.mforce_core.model.config import ConfigError
from mforce.mforce_core.model.tokens import unpatchify
from mforce.mforce_core.model.transformer import ModalityForcingTransformer
from mforce.training.config import RecipeConfig
from mforce.training.config_file import read_train_config
from mforce.training.data.encoded import EncodedSource
from mforce.training.draws import RowDraws
from mforce.training.initialize import build, fill
from mforce.training.losses import counted_pixels, depth_error
from mforce.training.noise import draw_noise, noisy_depth
from mforce.training.optimizer import MovingAverage, learning_rate
from mforce.training.processes import join
from mforce.training.recipe import Batch, depth_tokens, drop_captions, sparse_masks
from mforce.training.train import Trainer, train

# One process saving alone is meant.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

CONFIGS = Path(__file__).parent.parent / "training" / "configs"
NANO = Path(__file__).parent.parent / "models" / "nano"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 random latents of a 2x2 grid with 32x32 depth, and a word table."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "rgb": torch.randn(24, 128, 2, 2, generator=generator).half(),
        "depth": (torch.rand(24, 32, 32, generator=generator) * 3 + 1).half(),
    }
    captions = [f"a {color} cube" for color in ("red", "green", "blue")] * 8
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
    return read_train_config(CONFIGS / f"_small-{stage}.toml", overrides)


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("t2i")
    train(config("t2i", data, out))
    return out / "model"


def trainer_of(config) -> Trainer:
    return Trainer(config, join("cpu"))


def rows(count: int) -> RowDraws:
    return RowDraws(0, 0, range(count))


def batch_of(clean: torch.Tensor) -> Batch:
    return Batch(torch.zeros(clean.shape[0], 4, 8), clean, torch.zeros(clean.shape[0], 3, 5), (2, 2))


def maps_of(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens of a 2x2 grid as maps."""
    return unpatchify(tokens.unflatten(1, (2, 2)))


def test_masked_depth_loss_has_no_gradient_on_invalid_pixels() -> None:
    recipe = RecipeConfig(sparse_probability=1.0)
    clean = depth_tokens(torch.rand(6, 32, 32) + 1, recipe, 16, rows(6))
    assert (clean == 0).any()
    prediction = torch.randn(clean.shape, requires_grad=True)
    t_depth = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5, 0.0])
    for weighting in ("uniform", "relative", "velocity"):
        counted = (clean > 0) & (t_depth > 0)[:, None, None]
        assert torch.equal(counted, counted_pixels(clean, t_depth))
        loss = (depth_error(prediction, clean, t_depth, weighting) * counted).sum()
        (gradient,) = torch.autograd.grad(loss, prediction)
        assert (gradient[~counted] == 0).all()
        assert (gradient[counted] != 0).all()


def test_relative_weighting_is_the_relative_error_of_depth() -> None:
    """d(z) with dz/dd from autograd, on both branches of the contraction, for errors small enough to be linear."""
    from mforce.mforce_core.depth.codec import contract

    depth = torch.tensor([0.3, 0.8, 1.5, 4.0], dtype=torch.float64)
    clean = contract(depth)[None, None]
    prediction = contract(depth * 1.001)[None, None]
    loss = depth_error(prediction, clean, torch.ones(1), "relative").mean()
    assert float(loss.sqrt()) == pytest.approx(0.001, rel=5e-3)


def test_missing_pixels_are_noise_at_every_time() -> None:
    clean = torch.tensor([[[0.0, 1.5]]])
    noise = torch.tensor([[[-0.7, 0.4]]])
    for t, expected in ((0.0, 1.5), (0.5, 0.95), (1.0, 0.4)):
        noisy = noisy_depth(clean, noise, torch.tensor([t]))
        assert noisy[0, 0].tolist() == pytest.approx([-0.7, expected])


def test_task_mix() -> None:
    batch = batch_of(torch.ones(2000, 4, 4))
    noise = draw_noise(batch, RecipeConfig(), rows(2000))
    i2d, d2i = noise.t_rgb == 0, noise.t_depth == 0
    assert not (i2d & d2i).any()
    assert float(i2d.float().mean()) == pytest.approx(0.2, abs=0.04)
    assert float(d2i.float().mean()) == pytest.approx(0.2, abs=0.04)
    rest = noise.t_rgb[~i2d]
    assert float(torch.logit(rest).mean()) == pytest.approx(1.1, abs=0.1)
    assert float(torch.logit(rest).std()) == pytest.approx(1.0, abs=0.1)


def test_sparse_masks_keep_something_and_come_in_three_kinds() -> None:
    masks = sparse_masks((32, 32), 1.0, rows(300))
    assert masks.flatten(1).any(1).all()
    rows_whole = masks.all(2) | ~masks.any(2)
    scan_lines = rows_whole.all(1)
    dropped = masks.flatten(1).float().mean(1) > 0.5
    assert 0.2 < float(scan_lines.float().mean()) < 0.47
    assert float((~scan_lines & ~dropped).float().mean()) > 0.2
    assert sparse_masks((8, 8), 0.0, rows(1)).all()


def test_sparse_real_depth_keeps_what_it_has() -> None:
    """One measured pixel survives every mask; a map without any is all noise, at t_depth = 1."""
    depth = torch.zeros(40, 32, 32)
    depth[:20, 5, 7] = 3.0
    clean = depth_tokens(depth, RecipeConfig(sparse_probability=1.0), 16, rows(40))
    assert (clean[:20].flatten(1) > 0).sum(1).tolist() == [1] * 20
    assert not clean[20:].any()
    noise = draw_noise(batch_of(clean), RecipeConfig(), rows(40))
    assert (noise.t_depth[20:] == 1).all()
    assert (noise.t_rgb[20:] > 0).all()
    assert (noise.t_depth[:20] < 1).all()


def test_a_share_of_the_depth_is_what_a_sparse_sensor_gives() -> None:
    depth = torch.rand(40, 32, 32, generator=torch.Generator().manual_seed(0)) + 1
    depth[:, :16] = 0
    recipe = RecipeConfig(sparse_probability=0, depth_share=0.05)
    clean = maps_of(depth_tokens(depth, recipe, 16, rows(40)))
    kept = clean > 0
    assert not kept[:, :16].any()
    assert kept[:, 16:].float().mean().item() == pytest.approx(0.05, abs=0.005)
    whole = maps_of(depth_tokens(depth, RecipeConfig(sparse_probability=0), 16, rows(40)))
    spread = whole[kept] / clean[kept]  # every map has a scale of its own, that of its own mean
    assert spread.isfinite().all()
    assert (whole > 0).sum() == 40 * 16 * 32


def test_captions_are_dropped_with_their_probability() -> None:
    text, null = torch.ones(1000, 2, 3), torch.zeros(2, 3)
    kept = drop_captions(text, null, 0.1, rows(1000)).flatten(1)
    assert ((kept == 0).all(1) | (kept == 1).all(1)).all()
    assert float((kept == 0).float().mean()) == pytest.approx(0.1, abs=0.03)


def test_draws_of_a_row_do_not_depend_on_its_neighbors() -> None:
    clean = torch.ones(4, 4, 4)
    whole = draw_noise(batch_of(clean), RecipeConfig(), rows(4))
    part = draw_noise(batch_of(clean[2:]), RecipeConfig(), RowDraws(0, 0, range(2, 4)))
    for all_rows, last_rows in zip(whole, part, strict=True):
        assert torch.equal(all_rows[2:], last_rows)
    assert not torch.equal(whole.rgb[0], whole.rgb[1])


def test_batches_are_a_function_of_the_step(data: Path) -> None:
    source = EncodedSource([data], data, batch_size=5, seed=3)
    assert source.latent_shape == (128, 2, 2)
    assert source.null_text.shape == (4, 128)
    seen = torch.cat([source.batch(step, slice(0, 5)).rgb for step in range(5)])[:24].flatten(1)
    assert len(torch.unique(seen, dim=0)) == len(source) == 24
    first, second = source.batch(4, slice(0, 2)), source.batch(4, slice(2, 5))
    for whole, *parts in zip(source.batch(4, slice(0, 5)), first, second, strict=True):
        assert torch.equal(whole, torch.cat(parts))
    other = EncodedSource([data], data, batch_size=5, seed=4)
    assert not torch.equal(source.batch(0, slice(0, 5)).rgb, other.batch(0, slice(0, 5)).rgb)


def test_stage_two_starts_from_stage_one(base: Path) -> None:
    source = load_model(base, dtype=torch.float32)
    architecture = source.config.to_dict() | {
        "depth_channels": 256,
        "depth_decoder_num_layers": 1,
        "cross_stream_timestep_mixing": True,
    }
    model = build(type(source.config).from_dict(architecture), torch.float32).to_empty(device="cpu")
    fill(model, source.state_dict(), "image", seed=0)
    state = model.state_dict()
    for name, tensor in source.state_dict().items():
        assert torch.equal(state[name], tensor), name
    for depth, image in (
        ("double_blocks.0.depth_attn.qkv.weight", "double_blocks.0.img_attn.qkv.weight"),
        ("time_in_depth.in_layer.weight", "time_in.in_layer.weight"),
        ("single_stream_modulation_depth.lin.weight", "single_stream_modulation.lin.weight"),
        ("depth_decoder_blocks.0.linear1.weight", "single_blocks.0.linear1.weight"),
    ):
        assert torch.equal(state[depth], state[image])
    assert float(state["cross_alpha_img"]) == float(state["cross_alpha_depth"]) == 0
    # Without depth the student is its base, whatever the new weights are.
    rgb, text, t = torch.randn(1, 4, 128), torch.randn(1, 4, 128), torch.rand(1)
    with torch.no_grad():
        ours, theirs = (m(rgb, None, text, t, None, (2, 2))[0] for m in (model, source))
    torch.testing.assert_close(ours, theirs)


@pytest.fixture(scope="module")
def nano() -> ModalityForcingTransformer:
    return load_model(NANO, dtype=torch.float32)


@pytest.fixture(scope="module")
def image_half(nano) -> ModalityForcingTransformer:
    """A text-to-image model whose attention is trained: nano without its depth stream."""
    sizes = {"depth_channels": 0, "depth_decoder_num_layers": 0, "cross_stream_timestep_mixing": False}
    model = build(type(nano.config).from_dict(nano.config.to_dict() | sizes), torch.float32).to_empty(device="cpu")
    model.load_state_dict({name: nano.state_dict()[name] for name in model.state_dict()})
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def noise_in_both() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "rgb": torch.randn(4, 64, 128, generator=generator),
        "depth": torch.randn(4, 64, 256, generator=generator),
        "text": load_text_encoder(NANO).encode(["a red sphere on a wooden floor"] * 4),
        "t_rgb": torch.full((4,), 0.9),
        "t_depth": torch.ones(4),
        "grid": (8, 8),
    }


def student_of(nano, image_half, start: str) -> ModalityForcingTransformer:
    model = build(nano.config, torch.float32).to_empty(device="cpu")
    fill(model, image_half.state_dict(), start, seed=0)
    return model.requires_grad_(False)


def test_at_the_start_the_base_differs_by_the_presence_of_depth_tokens_alone(
    nano, image_half, noise_in_both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where image and text cannot see the depth tokens, the student's image is exactly the base's."""
    wanted, _ = image_half(**noise_in_both | {"depth": None, "t_depth": None})
    others = noise_in_both["text"].shape[1] + 64

    def blind(q, k, v, **options):
        if q.shape[1] <= others:
            return attention(q, k, v)
        parts = attention(q[:, :others], k[:, :others], v[:, :others]), attention(q[:, others:], k, v)
        return torch.cat(parts, dim=1)

    monkeypatch.setattr(blocks, "attention", blind)
    for start in ("image", "gated", "fresh", "paper"):
        found, _ = student_of(nano, image_half, start)(**noise_in_both)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_gated_start_is_near_the_base(nano, image_half, noise_in_both) -> None:
    """Attention has no mask, so depth tokens take a share of it: self-distillation starts small, not at zero."""
    wanted, _ = image_half(**noise_in_both | {"depth": None, "t_depth": None})
    error = {}
    for start in ("image", "gated"):
        found, _ = student_of(nano, image_half, start)(**noise_in_both)
        error[start] = float((found - wanted).square().mean() / wanted.square().mean())
    assert 0 < error["gated"] < 0.05
    assert error["gated"] < 0.7 * error["image"]


def test_one_scene_is_learned_by_heart(tmp_path: Path) -> None:
    """Both losses near zero: few channels, since a narrow model cannot pass the noise of many."""
    tensors = {"rgb": torch.randn(1, 8, 2, 2).half(), "depth": torch.rand(1, 4, 4).half() + 1}
    save_file(tensors, tmp_path / "latents-00000.safetensors", metadata={"captions": json.dumps(["red"])})
    WordTextEncoder.random(["red"], 8, 2).save(tmp_path / "text_encoder.safetensors")
    sizes = ["architecture.in_channels=8", "architecture.context_in_dim=8", "architecture.depth_decoder_num_layers=0"]
    train(config("t2i", tmp_path, tmp_path / "t2i", "steps=1", *sizes))
    settings = [f"base={tmp_path}/t2i/model", "architecture.depth_channels=4", "batch_size=32", "steps=300", *sizes]
    settings += ["recipe.distillation_high=0", "recipe.distillation_low=0", "recipe.sparse_probability=0"]
    settings += ["optimizer.learning_rate=1e-2", "optimizer.cooldown_steps=200", "optimizer.name=adamw"]
    trainer = trainer_of(config("mf", tmp_path, tmp_path / "mf", *settings))
    means = []
    for count in (5, 275, 20):
        for _ in range(count):
            trainer.train_step()
        means.append(trainer.measures())
    trainer.close()
    for name in ("rgb", "depth"):
        assert means[-1][name] < 0.03 * means[0][name], (name, means)


def test_finished_run_leaves_a_model_that_opens(base: Path) -> None:
    assert not load_model(base).config.has_depth
    assert (base.parent / "log.jsonl").read_text() == ""  # four steps, fewer than one log interval
    assert json.loads((base / "config.json").read_text())["image_size"] == [32, 32]
    assert [path.name for path in (base.parent / "checkpoints").iterdir()] == ["step-4"]
    assert "stage t2i" in (base.parent / "report.md").read_text()
    assert unpatchify(torch.zeros(1, 2, 2, 256)).shape == (1, 32, 32)


def test_an_exported_model_samples_like_the_run_it_comes_from(data: Path, base: Path, tmp_path: Path) -> None:
    settings = config("mf", data, tmp_path, f"base={base}", "optimizer.learning_rate=0.02")
    assert train(settings) == (4, None)
    at_the_end = trainer_of(settings)
    exported = load_model(tmp_path / "model", dtype=torch.float32)
    text = torch.randn(1, 4, 128, generator=torch.Generator().manual_seed(0))
    with at_the_end.average.in_model():
        weights = at_the_end.model.state_dict()
        # What a bfloat16 file can hold; the run itself keeps float32.
        at_the_end.model.load_state_dict({name: tensor.bfloat16() for name, tensor in weights.items()})
        wanted = sample(at_the_end.model, text, (2, 2), null_text=text, steps=3)
        found = sample(exported, text, (2, 2), null_text=text, steps=3)
    assert wanted[1].std() > 0
    assert all(map(torch.equal, found, wanted))
    at_the_end.close()


def test_learning_rate_warms_up_and_cools_down(data: Path, tmp_path: Path) -> None:
    optimizer = config(
        "t2i", data, tmp_path, "optimizer.warmup_steps=4", "optimizer.cooldown_steps=5", "optimizer.learning_rate=1.0"
    ).optimizer
    rates = [learning_rate(step, 20, optimizer) for step in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[14:] == pytest.approx([1.0, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_the_average_forgets_the_start_and_then_decays_as_configured() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = MovingAverage(model, 0.9)
    torch.nn.init.ones_(model.weight)
    for step in range(1, 31):
        average.update(step)
    assert float(1 - average.tensors["weight"]) < 1e-6  # 0.9 ** 30 would have left 4% of the start
    wanted = 1.0
    for step, value in enumerate((2.0, -1.0, 3.0), 91):
        torch.nn.init.constant_(model.weight, value)
        average.update(step)
        wanted = 0.9 * wanted + 0.1 * value
    assert float(average.tensors["weight"]) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_size=0", "batch_size: Input should be greater than 0"),
        ("optimizer.learning_rat=1", r"optimizer.learning_rat: .* \(did you mean optimizer.learning_rate\?\)"),
        ("recipe.probability_i2d=0.9", "exceeds 1"),
        ("architecture.num_heads=3", "not divisible"),
        ("stage=t2i", "depth_channels = 0"),
        ("trainable=half", "trainable: Input should be 'all', 'paper', 'depth' or 'lora'"),
        ("data.source=stream", "data: .*needs shards"),
        ("seed", "not of the form"),
        ("steps.more=1", "steps is a value"),
    ],
)
def test_bad_configurations_name_the_key(data: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config("mf", data, tmp_path, override)


def test_missing_latents_say_what_to_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.latents: .* holds no latents.*mforce data encode"):
        train(config("t2i", data, tmp_path / "out", f"data.latents={tmp_path}"))


def test_a_base_of_other_sizes_names_the_key(data: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"architecture\.hidden_size is 32, but the base .* has 64"):
        train(config("mf", data, tmp_path, f"base={base}", "architecture.hidden_size=32", "architecture.num_heads=1"))
    with pytest.raises(ConfigError, match="does not exist: train it first"):
        train(config("mf", data, tmp_path, f"base={tmp_path}/nothing"))


def test_presets_are_found_by_name_and_unknown_ones_named(tmp_path: Path) -> None:
    assert read_train_config(Path("scale-370m-mf-128m"), []).sizes().depth_channels == 256
    with pytest.raises(ConfigError, match=r"nothing does not exist: .*klein-4b, .*nano-mf"):
        read_train_config(Path("nothing"), [])


def test_held_out_samples_are_measured_and_shown(data: Path, base: Path, tmp_path: Path) -> None:
    more = [f"base={base}", f"heldout.latents={data}", "heldout.every=2", "heldout.samples=2", "log_every=1"]
    train(config("mf", data, tmp_path, *more, "heldout.sampling_steps=2"))
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    looks = {entry["step"]: entry["heldout_absrel"] for entry in entries if "heldout_absrel" in entry}
    assert looks.keys() == {2, 4}
    assert all(0 <= entry["heldout_delta1"] <= 1 for entry in entries if "heldout_absrel" in entry)
    assert all(0 < value < 2 for value in looks.values())
    # Of two samples the standard error of the mean is at most the mean, where one of them is exact.
    errors = [entry["heldout_absrel_standard_error"] for entry in entries if "heldout_absrel" in entry]
    assert all(0 < error < value for error, value in zip(errors, looks.values(), strict=True))
    with Image.open(tmp_path / "samples" / "step-0000004.png") as sheet:
        assert sheet.size == (3 * 32, 2 * 32)  # depth, image to depth, joint depth; no autoencoder for the images
    assert "held-out AbsRel" in (tmp_path / "report.md").read_text()
