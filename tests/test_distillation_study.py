"""Students against their teacher: distances against scipy's, a model against itself, and the study from end to end."""

import json
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import linalg

pytest.importorskip("typer")

from typer.testing import CliRunner

from command_line import run
from mforce.cli import distillation
from mforce.cli.app import app
from mforce.cli.commands.students import _named
from mforce.evaluation.comparison import spread
from mforce.evaluation.frechet import cell_distance, frechet
from mforce.mforce_core.model.config import ConfigError
from mforce.mforce_core.parts import model_path
from mforce.training.distillation_study import STUDIES, read_distillation_study, students

FEW = ("--prompts", 8, "--scenes", 2, "--varied", 2, "--seeds", 2)


def test_the_distance_is_that_of_the_matrix_root() -> None:
    random = np.random.default_rng(0)
    one = random.normal(size=(60, 12)) @ random.normal(size=(12, 12))
    two = 1.5 * random.normal(size=(80, 12)) + 0.3
    first, second = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    root = linalg.sqrtm(first @ second).real
    wanted = np.square(one.mean(0) - two.mean(0)).sum() + np.trace(first + second - 2 * root)
    assert frechet(one, two) == pytest.approx(wanted, rel=1e-6)
    assert frechet(one, one) == pytest.approx(0, abs=1e-8 * np.trace(first))


def test_cells_of_other_pictures_are_farther() -> None:
    generator = torch.Generator().manual_seed(0)
    real, made = torch.randn(2, 12, 16, 8, generator=generator)
    near, far = cell_distance(made, real), cell_distance(made + 1, real)
    assert near.value < 0.5 < far.value == pytest.approx(8, rel=0.2)
    assert far.low < far.value < far.high


@pytest.mark.parametrize("count", [8, 64])
def test_the_distance_lies_in_its_interval(count: int) -> None:
    """Resamples have some pictures twice and are farther from everything: plain percentiles lie above the value."""
    generator = torch.Generator().manual_seed(0)
    real, made = torch.randn(2, count, 16, 8, generator=generator) + torch.randn(2, count, 1, 8, generator=generator)
    found = cell_distance(made, real)
    assert 0 <= found.low < found.value < found.high


def test_spread_is_the_mean_over_pairs() -> None:
    pictures = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))  # three seeds of two prompts
    for prompt, found in enumerate(spread(pictures, 3)):
        own = pictures[prompt::2].flatten(1).numpy()
        distances = [np.sqrt(np.square(own[a] - own[b]).mean()) for a, b in ((0, 1), (0, 2), (1, 2))]
        assert float(found) == pytest.approx(np.mean(distances), rel=1e-5)
    assert spread(pictures[:1].repeat(6, 1, 1, 1), 3).tolist() == [0, 0]


def test_a_model_against_itself_and_a_broken_one(tmp_path: Path) -> None:
    """The teacher's own weights, sampled as the teacher is, give its numbers; zeroed ones do not."""
    folder = tmp_path / "student"
    shutil.copytree(model_path("nano"), folder)
    words = ("eval", "distilled", folder, "--steps", "1,2", "--teacher-steps", 2, *FEW)
    kept, table = tmp_path / "teacher.safetensors", tmp_path / "numbers.json"
    said = run(*words, "--reference", kept, "--json", table)
    assert said.count("| student |") == 2
    rows = json.loads(table.read_text())["rows"]
    assert [(row["name"], row["steps"]) for row in rows] == [
        ("teacher", 2),
        ("teacher, no guidance", 1),
        ("teacher, no guidance", 2),
        ("student", 1),
        ("student", 2),
    ]
    same = ("name", "intervals")
    for own, student in zip(rows[1:3], rows[3:], strict=True):
        assert {k: v for k, v in own.items() if k not in same} == {k: v for k, v in student.items() if k not in same}
    # Image to depth has no guidance: at the teacher's steps it is the teacher's.
    assert rows[2]["over_teacher"]["i2d_absrel"] == [1, 1, 1]
    assert rows[1]["over_teacher"]["i2d_absrel"][0] != 1
    assert rows[2]["over_teacher"]["d2i_absrel"][0] != 1  # guidance is missing there
    assert kept.exists()
    other = CliRunner().invoke(app, [str(w) for w in (*words, "--reference", kept, "--seed", 7)])
    assert other.exit_code == 2
    assert "remove this one" in " ".join(other.output.split())


def test_students_are_loaded_in_turn_and_rows_are_written_as_they_come(tmp_path: Path, monkeypatch) -> None:
    """A fault in the second student costs nothing of the first, and no half file appears."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        shutil.copytree(model_path("nano"), folder)
    alive: list[list[str]] = []
    living: dict[str, weakref.ref] = {}
    load = distillation._load

    def watched(settings, parts):
        alive.append([name for name, subject in living.items() if subject() is not None])
        if settings.model.endswith("two"):
            raise ValueError("this one cannot be loaded")
        subject = load(settings, parts)
        living[Path(settings.model).name] = weakref.ref(subject)
        return subject

    monkeypatch.setattr(distillation, "_load", watched)
    table = tmp_path / "numbers.json"
    words = ("eval", "distilled", *folders, "--steps", 1, "--teacher-steps", 1, "--prompts", 2, "--scenes", 2)
    words = (*words, "--varied", 2, "--seeds", 2, "--json", table, "--reference", tmp_path / "teacher.safetensors")
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert "this one cannot be loaded" in " ".join(result.output.split())
    assert alive == [[], ["nano"], ["nano"]]
    rows = json.loads(table.read_text())["rows"]
    assert [row["name"] for row in rows] == ["teacher", "teacher, no guidance", "one"]
    assert not list(tmp_path.glob(".*"))


def test_students_of_one_name_are_refused_and_those_of_runs_have_the_run_s(tmp_path: Path) -> None:
    named = [tmp_path / name for name in ("one/model", "two/model/model.safetensors", "three.safetensors")]
    assert list(_named(named)) == ["one", "two", "three.safetensors"]
    twice = [str(tmp_path / name / "model") for name in ("a/run", "b/run")]
    result = CliRunner().invoke(app, ["eval", "distilled", *twice])
    assert result.exit_code == 2
    assert "would both be called run" in " ".join(result.output.split())


def test_every_study_of_the_package_is_valid() -> None:
    for file in STUDIES.glob("*.toml"):
        study = read_distillation_study(file)
        assert len(students(study)) == len(study.variants)
    with pytest.raises(ConfigError, match="no variant is called nothing"):
        students(study, only="nothing")
    with pytest.raises(ConfigError, match="needs stage distill"):
        students(study.model_copy(update={"config": Path("nano-mf"), "set": (), "variants": study.variants[:1]}))
