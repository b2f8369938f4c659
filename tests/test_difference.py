"""The difference of two models as a LoRA of a given size, and the model that a base and such a file are."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

pytest.importorskip("typer")

from typer.testing import CliRunner

from command_line import run
from mforce import Pipeline
from mforce.cli.app import app
from mforce.cli.lora_info import describe_lora
from mforce.mforce_core import sample
from mforce.mforce_core.conversion.convert import ConversionError, convert_model
from mforce.mforce_core.conversion.difference import write_difference
from mforce.mforce_core.conversion.rank_allocation import allocate
from mforce.mforce_core.model.config import Distilled
from mforce.mforce_core.parts import find_parts, model_path
from mforce.mforce_core.weights.checkpoint import load_model, save_model
from mforce.mforce_core.weights.header import read_header
from mforce.mforce_core.weights.reading import read_weight, read_weights
from mforce.mforce_core.weights.tensor_files import CheckpointError
from mforce.mforce_core.weights.update import PAIR, UPDATE_FILE, read_update
from tiny_model import WIDER, random_model

MADE_FOR = Distilled(4, "points 1,1 0,1 0,0")
EVEN, NARROW = "single_blocks.0.linear1.weight", "single_blocks.0.linear2.weight"
SCALE = "single_blocks.0.norm.query_norm.scale"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base, and a model that differs from it evenly in one matrix, by rank 3 in another, and in a scale."""
    folder = tmp_path_factory.mktemp("models")
    model = random_model(WIDER, std=0.1)
    save_model(model, folder / "base", dtype=torch.float32)
    state = dict(model.named_parameters())
    with torch.no_grad():
        state[EVEN] += torch.randn_like(state[EVEN]) * 0.02
        state[NARROW] += torch.randn(96, 3) @ torch.randn(3, state[NARROW].shape[1]) * 0.02
        state[SCALE] += 0.25
    save_model(model, folder / "student", dtype=torch.float32, distilled=MADE_FOR)
    return folder / "base", folder / "student"


def as_update(folder: Path, base: Path) -> Path:
    """A folder that is ``base`` with the update in it."""
    (folder / "config.json").write_text(json.dumps({"base": str(base), "distilled": MADE_FOR.to_dict()}))
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name: weight.float() for name, weight in read_weights(read_header(path))}


def lost(base: Path, student: Path, found: Path) -> float:
    """The share of the matrices' squared difference that is not there."""
    one, other, made = (
        {name: w for name, w in weights(path).items() if w.ndim == 2} for path in (base, student, found)
    )
    missing = sum(float((other[name] - made[name]).square().sum()) for name in one)
    return missing / sum(float((other[name] - one[name]).square().sum()) for name in one)


@pytest.mark.parametrize(("values", "most"), [("fp8", 2e-3), ("bf16", 2e-5)])
def test_with_room_enough_it_is_the_student(models, tmp_path, values, most):
    base, student = models
    kept = write_difference(base, student, tmp_path / UPDATE_FILE, size=1_000_000, values=values)
    assert lost(base, student, as_update(tmp_path, base)) < most
    assert kept[EVEN].whole
    assert (kept[NARROW].whole, kept[NARROW].rank) == (False, 3)
    assert not any(part.values for name, part in kept.items() if name not in (EVEN, NARROW))
    header = read_header(tmp_path)
    assert header.config.distilled == MADE_FOR
    model = load_model(tmp_path, dtype=torch.float32)
    assert torch.equal(model.state_dict()[NARROW], weights(tmp_path)[NARROW])
    assert torch.equal(read_weight(header, EVEN), weights(tmp_path)[EVEN])
    assert {*read_update(header.update, header.shapes, NARROW).tensors} == {
        NARROW.removesuffix(".weight") + end for end in PAIR
    }


@pytest.mark.parametrize("size", [25_000, 60_000, 90_000])
def test_the_file_has_the_size_that_was_asked_for(models, tmp_path, size):
    base, student = models
    kept = write_difference(base, student, tmp_path / UPDATE_FILE, size=size)
    written = (tmp_path / UPDATE_FILE).stat().st_size
    assert written <= size
    # What it says that is lost, is lost; 8 bits cost little of it.
    one, other = weights(base), weights(student)
    energy = {name: float((other[name] - one[name]).square().sum()) for name in kept}
    said = sum(part.lost * energy[name] for name, part in kept.items()) / sum(energy.values())
    found = lost(base, student, as_update(tmp_path, base))
    assert said == pytest.approx(found, abs=3e-3)
    assert 0 < kept[EVEN].rank < 96
    assert kept[NARROW].rank == 3
    assert torch.equal(weights(tmp_path)[SCALE], other[SCALE])


def test_no_other_choice_of_as_many_values_loses_less():
    generator = torch.Generator().manual_seed(2)
    shapes = {"a": (5, 4), "b": (6, 3), "c": (4, 8)}
    spectra = {
        name: torch.rand(min(shape), generator=generator, dtype=torch.float64).sort(descending=True).values * scale
        for (name, shape), scale in zip(shapes.items(), (1.0, 0.3, 2.0), strict=True)
    }

    def options(name: str) -> list[tuple[int, float]]:
        """(values, squared difference lost) of every rank, and of the whole matrix."""
        rows, columns = shapes[name]
        squares = spectra[name].square()
        pairs = [(rank * (rows + columns), float(squares[rank:].sum())) for rank in range(len(squares) + 1)]
        return [*pairs, (rows * columns, 0.0)]

    every = [tuple(map(sum, zip(*parts, strict=True))) for parts in product(*map(options, shapes))]
    for most in (0, 10, 25, 40, 60, 200):
        kept = allocate(spectra, shapes, most)
        spent = sum(part.values for part in kept.values())
        gone = sum(part.lost * float(spectra[name].square().sum()) for name, part in kept.items())
        assert spent <= most
        assert gone <= min(other for values, other in every if values <= spent) + 1e-9


def test_lora_info_counts_what_is_whole(models, tmp_path):
    write_difference(*models, tmp_path / "x.safetensors", size=1_000_000)
    found = describe_lora(tmp_path / "x.safetensors")
    assert (found.layers, found.whole, found.rank) == (1, 1, {3: 1})
    assert (found.width, found.single_blocks, found.problems) == (96, 1, [])
    assert found.distilled == MADE_FOR


@pytest.mark.parametrize("base_values", [torch.float32, torch.float8_e4m3fn])
def test_base_and_update_become_one_file_that_makes_the_same_picture(models, tmp_path, base_values):
    base, student = models
    if base_values != torch.float32:  # as nano is stored
        state = {name: weight.to(base_values) for name, weight in load_file(base / "model.safetensors").items()}
        base = tmp_path / "base"
        base.mkdir()
        save_file(state, base / "model.safetensors")
        (base / "config.json").write_bytes((models[0] / "config.json").read_bytes())
    folder = tmp_path / "update"
    folder.mkdir()
    write_difference(base, student, folder / UPDATE_FILE, size=1_000_000)
    as_update(folder, base)
    convert_model(folder, tmp_path / "one.safetensors", to="fp32")
    header = read_header(tmp_path / "one.safetensors")
    assert (header.update, header.config.distilled) == (None, MADE_FOR)
    text = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    pictures = [
        sample(load_model(path, dtype=torch.float32), text, (2, 2), steps=2, cfg=1.0)
        for path in (folder, tmp_path / "one.safetensors", base)
    ]
    for merged, kept, without in zip(*pictures, strict=True):
        assert torch.equal(merged, kept)
        assert not torch.equal(merged, without)
    convert_model(folder, tmp_path / "half.safetensors")
    assert read_header(tmp_path / "half.safetensors").dtypes[EVEN] == "BF16"
    with pytest.raises(ConversionError, match="is the file that is converted"):
        convert_model(folder, folder / UPDATE_FILE, overwrite=True)


def test_what_cannot_be_written_or_read_is_said(models, tmp_path):
    base, student = models
    with pytest.raises(ConversionError, match="too few"):
        write_difference(base, student, tmp_path / "x.safetensors", size=100)
    with pytest.raises(ConversionError, match="have the same weights"):
        write_difference(base, base, tmp_path / "x.safetensors", size=10**6)
    assert not (tmp_path / "x.safetensors").exists()
    with pytest.raises(CheckpointError, match="not of the architecture"):
        write_difference(base, model_path("nano"), tmp_path / "x.safetensors", size=10**9)
    as_update(tmp_path, base)
    with pytest.raises(CheckpointError, match="lacks its update"):
        read_header(tmp_path)
    save_file({"diffusion_model.img_in.diff": torch.zeros(3)}, tmp_path / UPDATE_FILE)
    with pytest.raises(CheckpointError, match=r"img_in.diff \(3,\) fit none of its layers"):
        list(read_weights(read_header(tmp_path)))
    second = tmp_path / "second"
    second.mkdir()
    with pytest.raises(CheckpointError, match="has a base itself"):
        read_header(as_update(second, tmp_path))
    result = CliRunner().invoke(app, ["difference", str(base), str(student), str(tmp_path / "y"), "--to", "int4"])
    assert (result.exit_code, "--to int4 is unknown" in " ".join(result.output.split())) == (2, True)


@pytest.mark.parametrize("more", [(), ("--calibrate", 1, "--text-encoder", model_path("nano"))])
def test_no_empty_bars_stand_above_an_early_error(models, tmp_path, more):
    said = run("difference", *models, tmp_path / "y.safetensors", "--megabytes", 0.0001, *more, code=2)
    assert "too few" in said
    assert not {"Decomposing", "Running"} & set(said.split())


def test_the_command_writes_the_same_file(models, tmp_path):
    base, student = models
    write_difference(base, student, tmp_path / "a.safetensors", size=30_000)
    words = ("difference", base, student, tmp_path / "b.safetensors", "--megabytes", 0.03, "--device", "cpu")
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in "ab")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name].float(), other[name].float()) for name in one)


def test_nano_fast_is_nano_with_its_file():
    parts = find_parts("nano-fast")
    own = model_path("nano-fast") / UPDATE_FILE
    nano = model_path("nano").resolve()
    assert parts.trained_size() == (128, 128)
    assert set(parts.files()["model"]) >= {own, nano / "model.safetensors"}
    assert parts.text_encoder.parent == parts.vae == nano
    assert sum(file.stat().st_size for file in model_path("nano-fast").rglob("*") if file.is_file()) < 15e6
    described = json.loads(run("info", "nano-fast", "--json"))
    assert described["named"] == dict.fromkeys(("base", "text_encoder", "vae"), "mforce:models/nano")
    assert described["update"] == UPDATE_FILE
    assert {UPDATE_FILE, "mforce:models/nano"} <= set(run("info", "nano-fast").replace(",", " ").split())
    with safe_open(own, "pt") as file:
        assert Distilled(**json.loads(file.metadata()["distilled"])) == read_header(parts.model).config.distilled


def test_nano_fast_runs_in_its_steps_and_colors_are_right():
    from mforce.evaluation.appearance import dominant_hue
    from mforce.evaluation.nano import HUES, object_prompts

    pipeline = Pipeline.load("nano-fast", device="cpu")
    assert pipeline.autoencoder.familiarity is not None
    prompts = object_prompts()[::24]
    results = [pipeline.joint(prompt.text, seed=number) for number, prompt in enumerate(prompts)]
    made, own = results[0].settings, read_header(model_path("nano-fast")).config.distilled
    assert (made.model, made.steps, made.cfg) == ("nano-fast", 4, 1.0)
    assert (made.path, made.sampler) == (own.path, own.sampler)
    pictures = [torch.from_numpy(result.image).permute(2, 0, 1) / 255 for result in results]
    assert [dominant_hue(picture, HUES) for picture in pictures] == [prompt.color for prompt in prompts]


def test_nano_fast_becomes_one_file_with_the_parts_that_its_folder_names(tmp_path):
    whole = tmp_path / "whole.safetensors"
    convert_model(model_path("nano-fast"), whole, to="fp32", bundle=True)
    options = {"device": "cpu", "dtype": "float32"}
    made, wanted = (Pipeline.load(model, **options).joint("a red sphere", seed=3) for model in (whole, "nano-fast"))
    assert (made.settings.steps, made.settings.path) == (4, wanted.settings.path)
    assert abs(made.image.astype(int) - wanted.image).max() <= 1
    torch.testing.assert_close(torch.from_numpy(made.depth), torch.from_numpy(wanted.depth), rtol=1e-4, atol=0)
