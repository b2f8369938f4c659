"""The published recipe's options against formulations of their own: distributions, equations, what stays frozen."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats

import tiny_training
from mforce.mforce_core.model.config import ConfigError
from mforce.training.config import RecipeConfig, TrainConfig
from mforce.training.draws import RowDraws
from mforce.training.initialize import build, fill
from mforce.training.losses import Prediction, Totals, counted_pixels, gradient_error, losses
from mforce.training.noise import Noise, draw_noise
from mforce.training.processes import join
from mforce.training.recipe import Batch
from mforce.training.train import Trainer

MU = 1.1
DRAWS = 4000


def drawn_times(depth_times: str) -> tuple[np.ndarray, np.ndarray]:
    """Of RGB and depth, all joint."""
    recipe = RecipeConfig(depth_times=depth_times, probability_i2d=0, probability_d2i=0)
    batch = Batch(torch.zeros(DRAWS, 1, 1), torch.ones(DRAWS, 1, 1), torch.zeros(DRAWS, 1, 1), (1, 1))
    noise = draw_noise(batch, recipe, RowDraws(0, 0, range(DRAWS)))
    return noise.t_rgb.double().numpy(), noise.t_depth.double().numpy()


def plateau_cdf(times: np.ndarray) -> np.ndarray:
    """From the density alone: the logit-normal one up to its maximum, constant after it, integrated numerically."""

    def density(t: float) -> float:
        return float(stats.norm.pdf(np.log(t / (1 - t)) - MU) / (t * (1 - t)))

    mode = optimize.minimize_scalar(lambda t: -density(t), bounds=(1e-6, 1 - 1e-6), method="bounded").x
    grid = np.linspace(0, 1, 20001)
    values = [density(min(max(t, 1e-9), mode)) for t in grid]
    cumulative = integrate.cumulative_trapezoid(values, grid, initial=0)
    return np.interp(times, grid, cumulative / cumulative[-1])


def test_noise_levels_have_the_distributions_of_the_paper() -> None:
    rgb, depth = drawn_times("plateau")
    assert stats.kstest(np.log(rgb / (1 - rgb)) - MU, "norm").pvalue > 0.01
    assert stats.kstest(depth, plateau_cdf).pvalue > 0.01
    assert abs(np.corrcoef(rgb, depth)[0, 1]) < 0.05
    plain = drawn_times("logit_normal")[1]
    assert stats.kstest(np.log(plain / (1 - plain)) - MU, "norm").pvalue > 0.01
    assert stats.kstest(plain, plateau_cdf).pvalue < 1e-6  # the test tells them apart


def example(t_depth: float) -> tuple[Batch, Noise, Prediction]:
    """Three samples of a 2x2 grid of 4x4 patches, a third of the pixels not measured, with predictions that learn."""
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(3, 4, 16, generator=generator, dtype=torch.float64) * 1.8 + 0.1
    depth[torch.rand(depth.shape, generator=generator) < 1 / 3] = 0
    rgb, eps_rgb, velocity, teacher = torch.randn(4, 3, 4, 8, generator=generator, dtype=torch.float64)
    eps, found = torch.randn(2, 3, 4, 16, generator=generator, dtype=torch.float64)
    times = torch.full((3,), t_depth, dtype=torch.float64)
    noise = Noise(torch.tensor([0.3, 0.9, 0.6], dtype=torch.float64), times, eps_rgb, eps)
    prediction = Prediction(velocity.requires_grad_(True), found.requires_grad_(True), teacher)
    return Batch(rgb, depth, torch.zeros(3, 1, 1), (2, 2)), noise, prediction


def terms_of(batch: Batch, noise: Noise, prediction: Prediction, **recipe: object) -> dict[str, torch.Tensor]:
    pixels = float(counted_pixels(batch.depth, noise.t_depth).sum())
    return losses(prediction, batch, noise, RecipeConfig(**recipe), Totals(len(batch.rgb), pixels), {}).terms


@pytest.mark.parametrize("t", [0.05, 0.4, 1.0])
def test_the_velocity_weighting_is_equation_7(t: float) -> None:
    """The gradient of |(x_t - x0_hat) / t - v|^2 over the measured pixels."""
    batch, noise, prediction = example(t)
    loss = terms_of(batch, noise, prediction, depth_weighting="velocity")["depth"]
    (found,) = torch.autograd.grad(loss, prediction.depth)
    x_t = (1 - t) * batch.depth + t * noise.depth
    implied, velocity = (x_t - prediction.depth) / t, noise.depth - batch.depth
    (wanted,) = torch.autograd.grad((implied - velocity)[batch.depth > 0].square().mean(), prediction.depth)
    torch.testing.assert_close(found, wanted)


def test_the_velocity_weighting_has_a_floor() -> None:
    batch, noise, prediction = example(0.01)
    at_the_floor = terms_of(batch, noise, prediction, depth_weighting="velocity")["depth"]
    plain = terms_of(batch, noise, prediction, depth_weighting="uniform")["depth"]
    torch.testing.assert_close(at_the_floor, plain / 0.05**2)


def test_distillation_is_equation_8() -> None:
    batch, noise, prediction = example(0.4)
    found = terms_of(batch, noise, prediction, distillation_high=0.9, distillation_low=0.2)["distillation"]
    weight = 0.9 * noise.t_depth + 0.2 * (1 - noise.t_depth)
    wanted = (weight * (prediction.teacher - prediction.velocity).square().mean((1, 2))).mean()
    pair = (torch.autograd.grad(loss, prediction.velocity)[0] for loss in (found, wanted))
    torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-8)


def test_a_clean_picture_teaches_nothing_about_pictures() -> None:
    batch, noise, prediction = example(0.4)
    clean = noise._replace(t_rgb=torch.zeros_like(noise.t_rgb))
    terms = terms_of(batch, clean, prediction, distillation_high=0.9, distillation_low=0.2)
    assert float(terms["rgb"]) == float(terms["distillation"]) == 0
    assert terms["depth"] > 0


def by_loops(error: np.ndarray, known: np.ndarray) -> float:
    """The gradient-matching loss of one map, pair by pair."""
    total = 0.0
    for step in (1, 2, 4, 8):
        part, seen = error[::step, ::step], known[::step, ::step]
        for down, right in ((1, 0), (0, 1)):
            differences = [
                abs(part[y + down, x + right] - part[y, x])
                for y in range(part.shape[0] - down)
                for x in range(part.shape[1] - right)
                if seen[y, x] and seen[y + down, x + right]
            ]
            total += sum(differences) / max(1, len(differences))
    return total


def test_gradient_matching_sees_token_borders_and_only_measured_pairs() -> None:
    batch, noise, prediction = example(0.4)
    counted = counted_pixels(batch.depth, noise.t_depth)
    found = gradient_error(prediction.depth, batch.depth, counted, batch.grid)

    def as_map(tokens: torch.Tensor) -> np.ndarray:
        return tokens.detach().numpy().reshape(2, 2, 4, 4).transpose(0, 2, 1, 3).reshape(8, 8)

    for row in range(3):
        wanted = by_loops(as_map(prediction.depth[row] - batch.depth[row]), as_map(counted[row]))
        assert found[row].item() == pytest.approx(wanted)

    (gradient,) = torch.autograd.grad(found.sum(), prediction.depth)
    assert (gradient[~counted] == 0).all()
    # An offset of one whole token is a wrong gradient at its borders alone; of all tokens it is none.
    clean, everything = torch.ones(1, 4, 16), torch.ones(1, 4, 16, dtype=torch.bool)
    offset = torch.tensor([1.0, 0, 0, 0])[None, :, None].expand(1, 4, 16)
    assert float(gradient_error(clean + offset, clean, everything, (2, 2))) > 0
    assert float(gradient_error(clean + 1, clean, everything, (2, 2))) == 0


def config(data: Path, out: Path, stage: str = "mf", **more: object) -> TrainConfig:
    return tiny_training.config(stage, data, out, **{"steps": 50} | more)


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return tiny_training.write_base(folder, config(data, folder, "t2i"))


def test_the_papers_frozen_weights_are_the_same_bits_after_50_steps(data: Path, base: Path, tmp_path: Path) -> None:
    trainer = Trainer(
        config(data, tmp_path, base=base, trainable="paper", **{"recipe.depth_start": "paper"}), join("cpu")
    )
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    for _ in range(50):
        trainer.train_step()
    trainer.close()
    same = {name for name, tensor in trainer.model.state_dict().items() if torch.equal(tensor, before[name])}
    frozen = {name for name in before if name.startswith("double_blocks.") and ".img_" in name}
    assert len(frozen) == 6
    assert same == frozen | {"double_stream_modulation_img.lin.weight"}


def test_the_papers_start_copies_the_image_stream_and_nothing_else(data: Path, base: Path, tmp_path: Path) -> None:
    sizes = config(data, tmp_path, base=base).sizes()
    model = build(config(data, tmp_path, "t2i").sizes(), torch.float32).to_empty(device="cpu")
    source = model.state_dict()
    for tensor in source.values():
        tensor.normal_(generator=torch.Generator().manual_seed(tensor.numel()))
    model = build(sizes, torch.float32).to_empty(device="cpu")
    fill(model, source, "paper", seed=0)
    state = model.state_dict()
    for name, tensor in state.items():
        if name.startswith("double_blocks.") and ".depth_" in name:
            assert torch.equal(tensor, source[name.replace(".depth_", ".img_")]), name
    for depth, image in (
        ("double_stream_modulation_depth", "double_stream_modulation_img"),
        ("single_stream_modulation_depth", "single_stream_modulation"),
    ):
        assert torch.equal(state[f"{depth}.lin.weight"], source[f"{image}.lin.weight"])
    assert not torch.equal(state["time_in_depth.in_layer.weight"], source["time_in.in_layer.weight"])
    assert not torch.equal(state["depth_decoder_blocks.0.linear1.weight"], source["single_blocks.0.linear1.weight"])
    assert not state["depth_decoder_modulation.lin.weight"].any()
    assert float(state["cross_alpha_img"]) == float(state["cross_alpha_depth"]) == 0


DOCS = Path(__file__).parent.parent / "docs" / "training.md"


def test_the_loss_in_the_docs_trains(data: Path, base: Path, tmp_path: Path) -> None:
    """The example is run as it is printed; its value is logged, reported and part of the gradient."""
    code = DOCS.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    file = tmp_path / "my_losses.py"
    file.write_text(code)
    more = {"base": base, "recipe.terms": f'["{file}:far"]'}
    trainers = (Trainer(config(data, tmp_path / n, **m), join("cpu")) for n, m in (("a", {"base": base}), ("b", more)))
    measures = []
    for trainer in trainers:
        trainer.train_step()
        measures.append(trainer.measures())
        trainer.close()
    assert measures[1]["far"] > 0
    assert "far" not in measures[0]
    assert measures[0]["rgb"] == measures[1]["rgb"]
    assert measures[0]["gradient_norm"] != measures[1]["gradient_norm"]


def test_a_loss_that_is_not_there_is_named(data: Path, base: Path, tmp_path: Path) -> None:
    for name in ("no_such_module:term", f"{tmp_path}/none.py:term", "json:nothing", "term"):
        with pytest.raises(ConfigError, match=r"recipe\.terms: .*write module:function"):
            Trainer(config(data, tmp_path, base=base, **{"recipe.terms": f'["{name}"]'}), join("cpu"))
