"""Distribution matching against Gaussians, of which everything is known, and as a part of training."""

import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from mforce.mforce_core import load_model
from mforce.mforce_core.model.config import ConfigError, Schedule
from mforce.mforce_core.sampling import solvers
from mforce.mforce_core.sampling.guidance import Prediction
from mforce.mforce_core.sampling.path import PURE_NOISE
from mforce.mforce_core.sampling.schedule import Levels
from mforce.mforce_core.sampling.solvers import Streams
from mforce.training.config import DistillationConfig, OptimizerConfig, RecipeConfig
from mforce.training.denoisers import GuidedTeacher, landing_of
from mforce.training.distillation import Distillation, start_of
from mforce.training.draws import RowDraws
from mforce.training.jumps import PARTS, JumpPaths, Jumps
from mforce.training.log import read_log
from mforce.training.losses import Denoiser, Totals, losses
from mforce.training.losses import Prediction as Predicted
from mforce.training.matching import Matching, add_noise, denoising_error, direction, spread
from mforce.training.noise import Noise
from mforce.training.processes import join
from mforce.training.recipe import Batch
from mforce.training.train import Trainer, train
from mforce.training.trained import Trained, faster
from tiny_distillation import GRID, batch_of
from tiny_training import arguments, config, write_base
from two_processes import train_on_two

#: Noise levels where a step ends, and to which noise is added there.
PAIRS = [(0.0, 0.4), (0.0, 0.9), (0.3, 0.5), (0.6, 0.61), (0.9, 0.95)]
MATCHING = {"distillation.matching_weight": 0.5}


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    return write_base(folder, config("distill", data, folder, base=folder))


def levels(*values: float) -> list[Tensor]:
    return [torch.tensor([value], dtype=torch.float64) for value in values]


class Normal:
    """A flow whose clean values are normal: a sample at noise level t is, too, and all is known of it."""

    def __init__(self, mean: float, deviation: float) -> None:
        self.mean, self.variance = mean, deviation**2

    def at(self, t: float) -> tuple[float, float]:
        """Mean and variance at a noise level."""
        return (1 - t) * self.mean, (1 - t) ** 2 * self.variance + t**2

    def clean(self, noisy: Tensor, t: float) -> Tensor:
        """The mean of the clean values that a noisy one can come from, by the regression of one normal on another."""
        mean, variance = self.at(t)
        return self.mean + (1 - t) * self.variance / variance * (noisy - mean)


@pytest.mark.parametrize(("low", "high"), PAIRS)
def test_noise_is_added_as_a_path_that_rises_adds_it(low: float, high: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 1, 3, 4, generator=generator).double()
    wanted = solvers.add_noise(x, noise, low, high)
    torch.testing.assert_close(add_noise(x, noise, *levels(low, high)), wanted)
    assert torch.equal(add_noise(x, noise, *levels(low, low)), x)


@pytest.mark.parametrize(("low", "high"), PAIRS)
def test_a_critic_learns_the_mean_of_clean_values(low: float, high: float) -> None:
    """Of landings that are those of a flow of normal values: the loss of predictions that are a line over the noisy
    value is least, by least squares, at the line that is known."""
    generator, truth = torch.Generator().manual_seed(1), Normal(0.7, 0.5)
    count = 400_000
    clean, old, new = torch.randn(3, 1, count, 1, generator=generator, dtype=torch.float64)
    landing = (1 - low) * (truth.mean + 0.5 * clean) + low * old
    at = levels(low, high)
    noisy = add_noise(landing, new, *at)

    def error(prediction: Tensor) -> Tensor:
        return denoising_error(prediction, noisy, landing, new, *at, 1.0).flatten()

    constant = error(torch.zeros_like(noisy))
    columns = [error(basis) - constant for basis in (torch.ones_like(noisy), noisy)]
    found = torch.linalg.lstsq(torch.stack(columns, 1), -constant[:, None]).solution.flatten()
    wanted = truth.clean(torch.tensor([0.0, 1.0], dtype=torch.float64), high)
    # What a line says where noisy values lie, in units of how much one of them varies there.
    places = truth.at(high)[0] + truth.at(high)[1] ** 0.5 * torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    by_loss, known = found[0] + found[1] * places, wanted[0] + (wanted[1] - wanted[0]) * places
    rest = error(truth.clean(noisy, high)).std() / columns[0].abs().mean() / count**0.5
    torch.testing.assert_close(by_loss, known, rtol=0, atol=8 * float(rest))


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_a_target_has_no_more_noise_than_clean_values(scale: float) -> None:
    """However noisy a landing is and however little noise was added."""
    generator = torch.Generator().manual_seed(2)
    clean, old, new = torch.randn(3, 1, 100_000, 1, generator=generator, dtype=torch.float64)
    for low in (0.0, 0.5, 0.9, 0.997):
        for high in (low, low + 1e-4, low + 0.5 * (1 - low), 1.0):
            landing = (1 - low) * scale * clean + low * old
            at = levels(low, high)
            noisy = add_noise(landing, new, *at)
            error = denoising_error(scale * clean, noisy, landing, new, *at, scale)
            assert error.square().mean().sqrt() <= 1.02 * scale * (low > 0) + 1e-6


@pytest.mark.parametrize(("low", "high"), PAIRS)
def test_the_direction_is_the_gradient_of_the_divergence(low: float, high: float) -> None:
    """Of two normal distributions, whose divergence autograd differentiates: a step that ends elsewhere by ``shift``
    and farther apart by ``stretch``."""
    student, teacher = Normal(0.2, 0.8), Normal(0.5, 0.6)
    shift, stretch = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.1, 1.2))
    kept, _ = (float(factor) for factor in spread(*levels(low, high)))
    added = high**2 - (kept * low) ** 2
    mean, variance = student.at(low)
    # The landing is shift + stretch * z with z of the student's flow at s; with noise it is normal, too.
    own_mean, own_variance = kept * (shift + stretch * mean), kept**2 * stretch**2 * variance + added
    other_mean, other_variance = teacher.at(high)
    ratio = own_variance / other_variance
    divergence = 0.5 * (ratio + (own_mean - other_mean) ** 2 / other_variance - 1 - ratio.log())
    wanted = torch.autograd.grad(divergence, (shift, stretch))

    generator = torch.Generator().manual_seed(3)
    z, noise = torch.randn(2, 1, 400_000, 1, generator=generator, dtype=torch.float64)
    z = mean + variance**0.5 * z
    noisy = add_noise((shift + stretch * z).detach(), noise, *levels(low, high))
    # What a critic that has learned says of the landings: their score, as a clean value.
    score = -(noisy - own_mean.detach()) / own_variance.detach()
    critic = (noisy + high**2 * score) / (1 - high)
    teachers = teacher.clean(noisy, high)
    distance = 100.0  # farther than the critic is anywhere
    moved = direction(critic, teachers, teachers + distance) * distance * kept * (1 - high) / high**2
    for by_samples, exact in zip((moved, moved * z), wanted, strict=True):
        spare = 5 * float(by_samples.std()) / z.numel() ** 0.5
        assert float(by_samples.mean()) == pytest.approx(float(exact), abs=spare)


def test_no_sample_counts_for_more_than_its_distance() -> None:
    """Where the student is at the teacher's value, a critic that is elsewhere pulls as hard as any."""
    generator = torch.Generator().manual_seed(9)
    critic, teacher, far = torch.randn(3, 2, 4, 8, generator=generator)
    own = torch.stack((teacher[0] + 1e-4, teacher[1] + 10 * far[1]))
    found = direction(critic, teacher, own).abs().mean((1, 2))
    distance = 10 * far[1].abs().mean()
    assert found.tolist() == pytest.approx([1.0, float((critic - teacher)[1].abs().mean() / distance)], rel=1e-5)
    assert not direction(teacher, teacher, teacher).any()


def jumps_of(table: list, noised: list, batch: Batch, generator: torch.Generator) -> Jumps:
    """Jumps with a row of levels for each sample."""
    count = len(batch.rgb)
    noise = [torch.randn(tokens.shape, generator=generator) for tokens in (batch.rgb, batch.depth) * 2]
    empty, cfg = torch.zeros(count, dtype=torch.bool), torch.full((count,), 2.0)
    made = Jumps(*noise[:2], torch.tensor(table), cfg, empty)
    return made._replace(noised=torch.tensor(noised), noise_rgb=noise[2], noise_depth=noise[3])


def matching(student: Denoiser, teacher: Denoiser, critic: Denoiser, null_text: Tensor, **more) -> Distillation:
    recipe, guided = RecipeConfig(depth_loss_weight=3), GuidedTeacher(teacher, null_text, guided=True)
    part = Matching(guided, critic, recipe, 1.0)
    return Distillation(student, guided, recipe, student_finishes=False, matching=part, **more)


def twin(base: Path, seed: int):
    """The base with other weights near its own."""
    model, generator = load_model(base, dtype=torch.float32), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model.requires_grad_()


#: A joint step to clean values, one on the way with depth that stays noise, image to depth, and depth to image.
TABLE = [[(0.5, 0.9), (0.0, 0.0)], [(0.9, 1.0), (0.6, 1.0)], [(0.0, 0.8), (0.0, 0.3)], [(0.7, 0.0), (0.0, 0.0)]]
NOISED = [(0.3, 0.6), (0.8, 1.0), (0.0, 0.5), (0.2, 0.0)]


def test_a_step_lands_where_the_samplers_ends(base: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    batch = batch_of(4, generator)
    jumps = jumps_of(TABLE, NOISED, batch, generator)
    state, model = start_of(batch, jumps), load_model(base, dtype=torch.float32)
    start, end = jumps.levels[:, 0], jumps.levels[:, -1]
    raw = model(*state, batch.text, *start.unbind(1), GRID)
    found = landing_of(raw, state, start, end)
    for row in range(4):
        now, after = (Levels(*map(float, level[row])) for level in (start, end))
        own, said = Streams(*(x[row] for x in state)), Prediction(*(x[row] for x in raw))
        ahead, _ = solvers.Euler().step(lambda *_, said=said: said, own, 0, now, after)
        for ours, theirs in zip(found, ahead, strict=True):
            torch.testing.assert_close(ours[row], theirs)


def test_gradients_reach_student_and_critic_each_alone(base: Path) -> None:
    """The student has one where its stream moves, in the direction that critic and teacher differ in."""
    generator = torch.Generator().manual_seed(5)
    batch, null_text = batch_of(4, generator), torch.randn(2, 8, generator=generator)
    jumps = jumps_of(TABLE, NOISED, batch, generator)
    student, teacher, critic = (twin(base, seed) for seed in range(3))
    field = matching(student, teacher, critic, null_text, trajectory_weight=0.0)
    terms = field(batch, jumps, Totals(4, 0)).terms
    assert terms.keys() == {"matching_rgb", "matching_depth", "critic_rgb", "critic_depth"}
    for name, term in terms.items():
        reached, left = (student, critic) if name.startswith("matching") else (critic, student)
        gradients = torch.autograd.grad(term, list(reached.parameters()), retain_graph=True, allow_unused=True)
        assert sum(float(g.abs().sum()) for g in gradients if g is not None) > 0, name
        unused = torch.autograd.grad(
            term, [*left.parameters(), *teacher.parameters()], retain_graph=True, allow_unused=True
        )
        assert all(g is None for g in unused), name


def test_a_stream_to_which_no_noise_was_added_has_no_loss(base: Path) -> None:
    """It is at the end of its step already where the path waits for the other: there is nothing to denoise."""
    generator = torch.Generator().manual_seed(5)
    batch, null_text = batch_of(1, generator), torch.randn(2, 8, generator=generator)
    student, teacher, critic = (twin(base, seed) for seed in range(3))
    field = matching(student, teacher, critic, null_text, trajectory_weight=0.0)
    for waits, moves, ends, noised in (
        ("rgb", "depth", (0.5, 0.2), (0.5, 0.4)),
        ("depth", "rgb", (0.2, 0.5), (0.4, 0.5)),
    ):
        jumps = jumps_of([[(1.0, 1.0), ends]], [noised], batch, generator)
        terms = field(batch, jumps, Totals(1, 0)).terms
        assert not terms[f"matching_{waits}"]
        assert not terms[f"critic_{waits}"]
        assert terms[f"matching_{moves}"]
        assert terms[f"critic_{moves}"]


def test_the_landing_is_moved_in_the_direction(base: Path) -> None:
    """Counted out sample by sample from the three models' answers, with the gradient of the student's predictions."""
    generator = torch.Generator().manual_seed(6)
    batch, null_text = batch_of(4, generator), torch.randn(2, 8, generator=generator)
    jumps = jumps_of(TABLE, NOISED, batch, generator)
    student, teacher, critic = (twin(base, seed) for seed in range(3))
    state, start, end = start_of(batch, jumps), jumps.levels[:, 0], jumps.levels[:, -1]
    with torch.no_grad():
        velocity, depth = student(*state, batch.text, *start.unbind(1), GRID)
    raw = velocity.requires_grad_(), depth.requires_grad_()
    part = matching(student, teacher, critic, null_text).matching
    terms = part(batch, jumps, Totals(4, 0), state, raw)
    found = torch.autograd.grad(terms["matching_rgb"] + terms["matching_depth"], raw)

    landing = [x.detach() for x in landing_of(raw, state, start, end)]
    noise = jumps.noise_rgb, jumps.noise_depth
    noisy = [add_noise(*x) for x in zip(landing, noise, end.unbind(1), jumps.noised.unbind(1), strict=True)]
    times = jumps.noised.unbind(1)
    with torch.no_grad():
        own, prompted = (model(*noisy, batch.text, *times, GRID) for model in (critic, teacher))
        empty = teacher(*noisy, null_text.expand(4, -1, -1), *times, GRID)
    guided = [b + 2.0 * (a - b) for a, b in zip(prompted, empty, strict=True)]
    for row in range(4):
        for stream in range(2):
            t, s, tau = (float(x[row, stream]) for x in (start, end, jumps.noised))
            gradient = found[stream][row] * 4 * found[stream][row].numel()  # of a mean over samples and values
            if s == t:
                assert not gradient.any()
                continue
            first, second, mine = own[stream][row], guided[stream][row], raw[stream][row].detach()
            difference = first - second if stream else -tau * (first - second)
            clean = mine if stream else state.rgb[row] - t * mine
            teachers = second if stream else noisy[0][row] - tau * second
            wanted = difference / max((clean - teachers).abs().mean(), difference.abs().mean())
            step = (t - s) / t * 3 if stream else s - t  # depth's losses weigh three times as much
            torch.testing.assert_close(gradient, step * wanted, rtol=1e-3, atol=1e-4)


def test_of_clean_landings_a_critic_learns_by_the_ordinary_objective(base: Path) -> None:
    """The losses of the stage that the teacher comes from, on the landings as data."""
    generator = torch.Generator().manual_seed(7)
    batch, null_text = batch_of(3, generator), torch.randn(2, 8, generator=generator)
    jumps = jumps_of([[(0.5, 0.9), (0.0, 0.0)]] * 3, [(0.3, 0.6), (0.1, 0.2), (0.4, 0.89)], batch, generator)
    student, teacher, critic = (twin(base, seed) for seed in range(3))

    def student_of_depth(*inputs) -> tuple[Tensor, Tensor]:
        velocity, depth_x0 = student(*inputs)
        return velocity, 0.05 + 1.9 * torch.sigmoid(depth_x0)  # in the range of measured depth

    terms = matching(student_of_depth, teacher, critic, null_text)(batch, jumps, Totals(3, 0)).terms
    state, start = start_of(batch, jumps), jumps.levels[:, 0]
    raw = student_of_depth(*state, batch.text, *start.unbind(1), GRID)
    landing = landing_of(raw, state, start, jumps.levels[:, -1])
    data = batch._replace(rgb=landing.rgb.detach(), depth=landing.depth.detach())
    noise = Noise(*jumps.noised.unbind(1), jumps.noise_rgb, jumps.noise_depth)
    noisy = [
        torch.lerp(clean, new, t[:, None, None])
        for clean, new, t in zip((data.rgb, data.depth), noise[2:], noise[:2], strict=True)
    ]
    velocity, depth = critic(*noisy, data.text, noise.t_rgb, noise.t_depth, GRID)
    ordinary = losses(
        Predicted(velocity, depth, None),
        data,
        noise,
        RecipeConfig(depth_loss_weight=3),
        Totals(3, data.depth.numel()),
        {},
    ).terms
    assert terms["critic_rgb"].item() == pytest.approx(ordinary["rgb"].item(), rel=1e-4)
    assert terms["critic_depth"].item() == pytest.approx(ordinary["depth"].item(), rel=1e-4)


def test_noise_leads_to_a_place_of_the_students_own_step() -> None:
    """Of a step on which a stream leaves pure noise, past where it is all noise; others draw what they drew before."""
    count = 4000
    batch = Batch(torch.zeros(count, 1, 1), torch.ones(count, 1, 1), torch.zeros(count, 1, 1), (1, 1))
    batch.depth[:400] = 0

    def drawn(weight: float) -> tuple[JumpPaths, Jumps]:
        paths = JumpPaths(DistillationConfig(matching_weight=weight), RecipeConfig(), Schedule())
        return paths, paths.draw(batch, RowDraws(0, 0, range(count)))

    (paths, jumps), (_, plain) = drawn(1.0), drawn(0.0)
    assert plain[7:10] == (None, None, None)
    assert all(torch.equal(a, b) for a, b in zip(jumps[:5], plain[:5], strict=True))
    start, end, noised = jumps.levels[:, 0], jumps.levels[:, -1], jumps.noised
    moves = end < start
    assert (noised >= end).all()
    assert (noised > end).any(1)[moves.any(1)].all()
    assert (noised[moves] < PURE_NOISE).all()
    assert torch.equal(noised[~moves.any(1)], end[~moves.any(1)])
    # The end of the student's step before, on the same path, is as far as the noise goes.
    table = paths.levels[:, ::PARTS]
    for row in range(0, count, 40):
        same = [(path == end[row]).all(1).nonzero() for path in table]
        bounds = [
            path[place - 1] for path, where in zip(table, same, strict=True) for place in where.flatten() if place
        ]
        assert not moves[row].any() or any((noised[row] <= bound + 1e-6).all() for bound in bounds)


def test_without_matching_all_is_as_it_was(data: Path, base: Path, tmp_path: Path) -> None:
    """Nothing of a critic is built, kept in a checkpoint or logged."""
    trainer = Trainer(config("distill", data, tmp_path, base=base), join("cpu"))
    trainer.train_step()
    trainer.close()
    assert trainer.critic is None
    values = trainer.measures()
    assert values.keys() >= {"rgb", "depth", "gradient_norm"}
    assert not any("critic" in name or "matching" in name for name in (*trainer.state.tensors(), *values))


def test_trajectories_can_be_left_out(data: Path, base: Path, tmp_path: Path) -> None:
    """Then the teacher is asked where the student landed, and nowhere else."""
    more = MATCHING | {"distillation.trajectory_weight": 0.0}
    trainer = Trainer(config("distill", data, tmp_path, base=base, **more), join("cpu"))
    asked, model = [], trainer.losses.teacher.model
    trainer.losses.teacher.model = lambda *inputs: asked.append(len(inputs[0])) or model(*inputs)
    trainer.train_step()
    trainer.close()
    assert asked == [8]  # four samples, with their captions and without
    values = trainer.measures()
    assert "rgb" not in values
    assert values["matching_rgb"] > 0
    assert values["critic_norm"] > 0


def test_what_cannot_be_matched_is_refused_in_a_sentence(data: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no critic of low-rank updates"):
        config("distill", data, tmp_path, base=base, trainable="lora", **MATCHING)
    with pytest.raises(ConfigError, match="nothing is learned of the teacher"):
        config("distill", data, tmp_path, base=base, **{"distillation.trajectory_weight": 0.0})


def test_a_run_with_a_critic_resumes_to_the_last_bit(data: Path, base: Path, tmp_path: Path) -> None:
    def steps_of(out: Path, count: int) -> tuple[Trainer, dict[str, Tensor]]:
        made = config("distill", data, out, base=base, steps=8, **MATCHING)
        trainer = Trainer(made, join("cpu"))
        for _ in range(count):
            trainer.train_step()
        trainer.save()
        trainer.close()
        return trainer, {name: tensor.clone() for name, tensor in trainer.state.tensors().items()}

    steps_of(tmp_path / "stopped", 2)
    (_, resumed), (trainer, whole) = steps_of(tmp_path / "stopped", 2), steps_of(tmp_path / "whole", 4)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    start = load_model(base, dtype=torch.float32).state_dict()["img_in.weight"]
    critic, student = whole["critic.img_in.weight"], whole["model.img_in.weight"]
    assert not any(torch.equal(a, b) for a, b in ((critic, start), (student, start), (critic, student)))
    assert "average.img_in.weight" in whole
    assert not any(name.startswith("average.critic") for name in whole)
    assert torch.equal(trainer.model.state_dict()["img_in.weight"], student)


def test_compiled_models_match_like_plain_ones(
    data: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Student, teacher and critic as graphs, gradients included, which PyTorch's own operators run."""
    graphs = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=graphs))
    more = MATCHING | {"distillation.trajectory_weight": 0.0, "base": base}

    def step(wanted: str) -> dict[str, float]:
        trainer = Trainer(config("distill", data, tmp_path / wanted, compile=wanted, **more), join("cpu"))
        trainer.train_step()
        trainer.close()
        return trainer.measures()

    plain = step("false")
    assert graphs.frame_count == 0
    assert step("true") == pytest.approx(plain, rel=1e-4)
    assert graphs.frame_count >= 3
    assert plain["critic_rgb"] > 0
    assert plain["critic_norm"] > 0


def test_two_processes_match_like_one(data: Path, base: Path, tmp_path: Path) -> None:
    """Sharded, in two micro-batches each; the model that is exported is the student, without its critic."""
    more = {"base": base, "steps": 4, "log_every": 1} | MATCHING
    train(config("distill", data, tmp_path / "one", **more))
    many = more | {"scale.micro_batch_size": 1}
    train_on_two("_small-distill", arguments("distill", data, tmp_path / "two", **many), tmp_path)
    one, two = (read_log(tmp_path / name) for name in ("one", "two"))
    names = ("rgb", "depth", "matching_rgb", "matching_depth", "critic_rgb", "critic_depth", "critic_norm")
    for ours, theirs in zip(two, one, strict=True):
        assert [ours[name] for name in names] == pytest.approx([theirs[name] for name in names], rel=1e-3)
    tensors = [load_model(tmp_path / name / "model", dtype=torch.float32).state_dict() for name in ("one", "two")]
    assert tensors[0].keys() == load_model(base).state_dict().keys()
    for name, tensor in tensors[0].items():
        torch.testing.assert_close(tensors[1][name], tensor, rtol=0, atol=2e-3, msg=name)


class Line(torch.nn.Module):
    """A student of normal values: one step from noise ends at a line over it, of slope and height to be learned."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor([1.5, 0.3]))
        self.height = torch.nn.Parameter(torch.tensor([-1.0, 1.0]))

    def forward(self, rgb: Tensor, depth: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        ends = [k * x + m for k, x, m in zip(self.slope, (rgb, depth), self.height, strict=True)]
        return rgb - ends[0], ends[1]


class NormalModel(torch.nn.Module):
    """What a model of normal values says of noisy ones; their means and deviations can be learned."""

    def __init__(self, means: list[float], deviations: list[float]) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(means))
        self.deviation = torch.nn.Parameter(torch.tensor(deviations))

    def forward(self, rgb: Tensor, depth: Tensor, text: Tensor, t_rgb: Tensor, t_depth: Tensor, grid) -> tuple:
        times = [t[:, None, None] for t in (t_rgb, t_depth)]
        streams = zip(self.mean, self.deviation, times, (rgb, depth), strict=True)
        clean = [
            mean + (1 - t) * s**2 / ((1 - t) ** 2 * s**2 + t**2) * (x - (1 - t) * mean) for mean, s, t, x in streams
        ]
        return (rgb - clean[0]) / times[0], clean[1]


@pytest.mark.parametrize("end", [(0.0, 0.0), (0.5, 0.3)])
def test_a_students_distribution_becomes_its_teachers(end: tuple[float, float]) -> None:
    """Of normal values, at clean and at noisy ends, from another mean and deviation; no trajectory is given."""
    generator, steps, count = torch.Generator().manual_seed(8), 500, 256
    means, deviations = (0.4, -0.2), (0.6, 0.9)
    student, critic = Line(), NormalModel([0.0, 0.0], [1.0, 1.0])
    teacher = GuidedTeacher(NormalModel(list(means), list(deviations)), torch.zeros(2, 8), guided=False)
    part = Matching(teacher, critic, RecipeConfig(depth_weighting="uniform"), 1.0)
    own = OptimizerConfig(learning_rate=0.01, warmup_steps=0, cooldown_steps=steps // 2, weight_decay=0)
    trained = [Trained(student, own, steps), Trained(critic, faster(own, 5.0), steps)]
    table = torch.tensor([(1.0, 1.0), end]).expand(count, 2, 2)
    for number in range(steps):
        noise = torch.randn(4, count, 1, 8, generator=generator)
        batch = Batch(noise[0], noise[1], torch.zeros(count, 2, 8), (1, 1))
        noised = torch.lerp(torch.tensor(end), torch.ones(2), 0.05 + 0.9 * torch.rand(count, 1, generator=generator))
        jumps = Jumps(*noise[:2], table, torch.ones(count), torch.zeros(count, dtype=torch.bool))
        jumps = jumps._replace(noised=noised, noise_rgb=noise[2], noise_depth=noise[3])
        state = Streams(*noise[:2])
        terms = part(batch, jumps, Totals(count, 0), state, student(*state))
        torch.stack(list(terms.values())).sum().backward()
        for one in trained:
            one.step(number)
    for s, k, m, mean, deviation in zip(end, student.slope, student.height, means, deviations, strict=True):
        # It lands at s z + (1 - s) (k z + m).
        assert float((1 - s) * m) == pytest.approx((1 - s) * mean, abs=0.03)
        assert float(s + (1 - s) * k) == pytest.approx(Normal(mean, deviation).at(s)[1] ** 0.5, abs=0.03)
