"""What errors of weights cost: the metrics, the choice by them, and the run that they are gathered in."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("typer")

from typer.testing import CliRunner

from mforce.cli.app import app
from mforce.mforce_core.calibration.samples import calibration_samples
from mforce.mforce_core.calibration.statistics import Calibration
from mforce.mforce_core.conversion.difference import write_difference
from mforce.mforce_core.conversion.weighted_svd import ErrorMetric, components, spectrum, stored_pair, stored_whole
from mforce.mforce_core.encoders.words import WORDS_FILE, WordTextEncoder
from mforce.mforce_core.model.config import Distilled, Schedule
from mforce.mforce_core.model.transformer import ModalityForcingTransformer
from mforce.mforce_core.sampling.path_spec import PathSpec
from mforce.mforce_core.weights.checkpoint import save_model
from mforce.mforce_core.weights.header import read_header
from mforce.mforce_core.weights.reading import read_weights
from mforce.mforce_core.weights.update import UPDATE_FILE
from tiny_model import WIDER, random_model

GRID = (2, 2)
WAY = Distilled(2, "points 1,1 0,1 0,0", i2d_steps=1)
FP8 = torch.float8_e4m3fn


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def metric_of(inputs: torch.Tensor, outputs: torch.Tensor) -> ErrorMetric:
    return ErrorMetric(inputs.T @ inputs / len(inputs), outputs)


def cost(error: torch.Tensor, metric: ErrorMetric) -> float:
    return float((metric.outputs[:, None] * error * (error @ metric.inputs)).sum())


def test_where_all_inputs_and_outputs_count_alike_it_is_the_plain_choice():
    difference, metric = randn(12, 20), ErrorMetric(torch.eye(20), torch.ones(12))
    left, singular, right = torch.linalg.svd(difference, full_matrices=False)
    # The floor makes everything cost a little more, and nothing else.
    torch.testing.assert_close(spectrum(difference, metric), 1.001 * singular.double(), rtol=1e-5, atol=0)
    down, up = components(difference, metric, 5)
    torch.testing.assert_close(up @ down, left[:, :5] * singular[:5] @ right[:5], rtol=0, atol=1e-4)
    torch.testing.assert_close(spectrum(difference, None), singular.double(), rtol=1e-5, atol=0)


def test_inputs_in_a_subspace_need_no_more_components_than_it_has_dimensions():
    difference, inputs = randn(30, 24), randn(200, 3, seed=1) @ randn(3, 24, seed=2)
    down, up = components(difference, metric_of(inputs, torch.ones(30)), 3)
    wanted = inputs @ difference.T
    error = (inputs @ (up @ down).T - wanted).square().sum() / wanted.square().sum()
    assert error < 1e-3
    left, singular, right = torch.linalg.svd(difference, full_matrices=False)
    plain = inputs @ (left[:, :3] * singular[:3] @ right[:3]).T
    assert (plain - wanted).square().sum() / wanted.square().sum() > 0.3


def test_no_other_pair_of_the_rank_costs_less():
    difference = randn(10, 14)
    metric = metric_of(randn(100, 14, seed=1) * torch.linspace(0.1, 3, 14), torch.linspace(0.01, 2, 10))
    whole = ErrorMetric(metric.moment.float(), metric.scales[:, 0].square())  # with its floors
    down, up = components(difference, metric, 4)
    best = cost(difference - up @ down, whole)
    assert best == pytest.approx(float(spectrum(difference, metric)[4:].square().sum()), rel=1e-3)
    generator = torch.Generator().manual_seed(3)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(50):
            other = down + size * torch.randn(down.shape, generator=generator)
            seen = other.double() @ whole.inputs.double()
            fitted = torch.linalg.solve(seen @ other.double().T, seen @ difference.double().T).T.float()
            assert cost(difference - fitted @ other, whole) >= best * (1 - 1e-4)


def test_rounding_costs_less_with_the_measure():
    inputs = randn(300, 64, seed=1) @ (randn(64, 64, seed=2) * torch.logspace(0, -2, 64)[:, None])
    difference, metric = randn(48, 64), metric_of(inputs, torch.ones(48))
    nearest, fed = stored_whole(difference, None, FP8), stored_whole(difference, metric, FP8)
    assert fed.values.dtype == nearest.values.dtype == FP8
    assert cost(difference - fed.restored, metric) < 0.5 * cost(difference - nearest.restored, metric)
    down, up = components(difference, metric, 16)
    lower, upper = stored_pair(difference, metric, 16, FP8)
    simple = [stored_whole(half, None, FP8).restored for half in (up, down)]
    exact = cost(difference - up @ down, metric)
    lost = cost(difference - upper.restored @ lower.restored, metric) - exact
    assert lost < 0.7 * (cost(difference - simple[0] @ simple[1], metric) - exact)
    # The upper half knows how the lower one was rounded.
    assert lost < 0.97 * (cost(difference - simple[0] @ lower.restored, metric) - exact)


def test_what_rounding_cost_is_taken_up_beyond_the_block(monkeypatch):
    inputs = randn(300, 64, seed=1) @ (randn(64, 64, seed=2) * torch.logspace(0, -2, 64)[:, None])
    difference, metric = randn(48, 64), metric_of(inputs, torch.ones(48))
    costs = []
    for block in (64, 16):
        monkeypatch.setattr("mforce.mforce_core.conversion.weighted_svd._BLOCK", block)
        costs.append(cost(difference - stored_whole(difference, metric, FP8).restored, metric))
    assert costs[1] == pytest.approx(costs[0], rel=0.05)


@pytest.mark.parametrize("size", [1e-8, 1e8])
def test_what_is_kept_does_not_depend_on_the_unit_of_inputs_and_outputs(size):
    difference, metric = randn(10, 14), metric_of(randn(8, 14, seed=1), randn(10, seed=2).square())
    scaled = ErrorMetric(metric.inputs * size, metric.outputs / size)
    torch.testing.assert_close(spectrum(difference, scaled), spectrum(difference, metric), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base with words, and a model all of whose weights moved a little."""
    folder = tmp_path_factory.mktemp("models")
    model = random_model(WIDER, std=0.1)
    save_model(model, folder / "base", dtype=torch.float32, image_size=(32, 32))
    WordTextEncoder.random(["a", "red", "sphere", "on", "floor"], 32, 4).save(folder / "base" / WORDS_FILE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn_like(parameter) * 0.02
    save_model(model, folder / "student", dtype=torch.float32, image_size=(32, 32), distilled=WAY)
    return folder / "base", folder / "student"


def calibration(path: Path, memory: int = 1 << 30, prompts: int = 6) -> Calibration:
    model = loaded(dict(read_weights(read_header(path))))
    return Calibration(model, list(calibration_samples(model, randn(prompts, 4, 32), randn(1, 4, 32), GRID, WAY)), GRID,
                       memory=memory)  # fmt: skip


def loaded(state: dict[str, torch.Tensor]) -> ModalityForcingTransformer:
    model = ModalityForcingTransformer(WIDER)
    model.load_state_dict({name: weight.float() for name, weight in state.items()})
    return model.requires_grad_(False).eval()


def test_questions_are_on_the_path_and_beside_it_in_all_tasks(models):
    asked = calibration(models[1]).samples
    assert {one.mode for one in asked} == {"joint", "i2d", "d2i"}
    joint = [
        (float(q.t_rgb[0]), float(q.t_depth[0])) for q in asked if q.mode == "joint" and q.t_rgb.unique().numel() == 1
    ]
    path = PathSpec.parse(WAY.path).build(2, Schedule())
    assert joint == [tuple(levels) for levels in path.levels[:-1]]
    assert all(not one.t_rgb.any() for one in asked if one.mode == "i2d")
    assert all(not one.t_depth.any() for one in asked if one.mode == "d2i")


def test_what_is_gathered_is_what_layers_receive_and_how_predictions_hang_on_them(models):
    found = calibration(models[1], prompts=200)
    tokens = torch.cat([one.rgb for one in found.samples]).flatten(0, 1)
    torch.testing.assert_close(found.metric("img_in.weight").inputs, tokens.T @ tokens / len(tokens))
    # A velocity is an output of this layer, so each of four tokens counts 1 where velocities are asked for.
    counts = sum(len(q.rgb) for q in found.samples if q.mode != "i2d") / sum(len(q.rgb) for q in found.samples)
    given = found.metric("final_layer.linear.weight").outputs
    torch.testing.assert_close(given, torch.full_like(given, 4 * counts), rtol=0.15, atol=0)
    assert found.metric("final_layer.linear.bias") is None


def test_layers_that_are_gathered_in_turns_have_the_same_measures(models):
    together, alone = calibration(models[1]), calibration(models[1], memory=1)
    for name in ("img_in.weight", "single_blocks.0.linear2.weight", "txt_in.weight"):
        one, other = together.metric(name), alone.metric(name)
        torch.testing.assert_close(one.inputs, other.inputs)
        torch.testing.assert_close(one.outputs, other.outputs)


def test_predictions_change_by_what_the_measure_says(models):
    """An error in one layer against the squared change of the predictions, which backpropagation does not enter."""
    found = calibration(models[1], prompts=100)
    weight = found.model.single_blocks[0].linear2.weight
    error = 1e-3 * randn(*weight.shape, seed=5)
    metric = found.metric("single_blocks.0.linear2.weight")
    changed = 0.0
    for one in found.samples:
        answers = []
        for sign in (0, 1):
            weight += sign * error
            answers.append(found.model(*one[1:], GRID))
            weight -= sign * error
        for before, after, given in zip(*answers, ("i2d", "d2i"), strict=True):
            changed += 0.0 if one.mode == given else float((after - before).square().sum())
    changed /= sum(len(one.rgb) for one in found.samples)
    assert cost(error, metric) == pytest.approx(changed, rel=0.25)


def test_the_command_chooses_by_predictions(models, tmp_path):
    base, student = models
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red sphere\n\na red floor\n")
    made = tmp_path / "made"
    made.mkdir()
    words = ["difference", base, student, made / UPDATE_FILE, "--megabytes", 0.15, "--device", "cpu"]
    result = CliRunner().invoke(app, [str(word) for word in (*words, "--calibrate", 8, "--prompts", prompts)])
    assert result.exit_code == 0, result.output
    assert (made / UPDATE_FILE).stat().st_size <= 150_000
    plain = tmp_path / "plain"
    plain.mkdir()
    write_difference(base, student, plain / UPDATE_FILE, size=150_000)
    target = loaded(dict(read_weights(read_header(student))))
    errors = {}
    for folder in (made, plain):
        (folder / "config.json").write_text(json.dumps({"base": str(base)}))
        model = loaded(dict(read_weights(read_header(folder))))
        errors[folder] = 0.0
        for one in calibration_samples(target, randn(8, 4, 32, seed=9), randn(1, 4, 32), GRID, WAY):
            pairs = zip(model(*one[1:], GRID), target(*one[1:], GRID), strict=True)
            errors[folder] += sum(float((one - other).square().sum()) for one, other in pairs)
    assert errors[made] < 0.7 * errors[plain]


def test_what_cannot_be_calibrated_is_said(models, tmp_path):
    base, student = models
    words = ["difference", str(base), str(student), str(tmp_path / "x"), "--device", "cpu"]
    result = CliRunner().invoke(app, [*words, "--prompts", str(tmp_path / "p")])
    assert (result.exit_code, "are for --calibrate" in " ".join(result.output.split())) == (2, True)
    empty = tmp_path / "p"
    empty.write_text("\n")
    result = CliRunner().invoke(app, [*words, "--calibrate", "2", "--prompts", str(empty)])
    assert (result.exit_code, "holds no prompt" in " ".join(result.output.split())) == (2, True)


def test_a_model_is_not_run_for_a_file_that_cannot_be_made(models, tmp_path):
    base, student = models
    made, other = tmp_path / "x.safetensors", tmp_path / "other"
    made.touch()
    save_model(ModalityForcingTransformer(replace(WIDER, hidden_size=48, axes_dim=(6, 6, 6, 6))), other)
    for arguments, sentence in (
        ((base, student, made), "exists already"),
        ((base, other, tmp_path / "y.safetensors"), "is not of the architecture"),
        ((base, student, tmp_path / "y.safetensors", "--megabytes", "0.001"), "are too few"),
    ):
        words = ["difference", *map(str, arguments), "--calibrate", "2", "--device", "cpu"]
        result = CliRunner().invoke(app, words)
        assert (result.exit_code, sentence in " ".join(result.output.split())) == (2, True), result.output
        assert "1/2" not in result.output
        assert "2/2" not in result.output
