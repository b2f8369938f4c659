"""A study at a tiny size: the grid, what goes on after a stop, the report, refusals."""

import json
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mforce.mforce_core.encoders.words import WordTextEncoder
from mforce.mforce_core.model.config import ConfigError
from mforce.training import study as study_module
from mforce.training.config import TrainConfig
from mforce.training.stop import Stopped
from mforce.training.study import STUDIES, StudyConfig, cells, configurations, finished, read_study, run_study
from mforce.training.train import Ended

# One process saving alone is meant.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

STUDY = """
title = "Tiny"
out = "{folder}/study"
bases = "{folder}/bases"
pretraining_images = [4, 12]
mf_images = 8

[t2i]
config = "nano-t2i"
set = ["log_every=1"]

[mf]
config = "nano-mf"
set = ["heldout.latents={folder}", "heldout.samples=3", "heldout.sampling_steps=1"]

[[models]]
name = "w32"
set = ["architecture.hidden_size=32", "architecture.num_heads=1"]

[[models]]
name = "w64"
set = ["architecture.hidden_size=64", "architecture.num_heads=2"]

[[recipes]]
name = "dense"

[[recipes]]
name = "sparse"
set = ["recipe.depth_share=0.05"]
"""


#: For all cells.
TINY = ["architecture.axes_dim=[8, 8, 8, 8]", "architecture.depth_single=1", "precision=float32", "compile=false"]


@pytest.fixture
def study(tmp_path: Path) -> StudyConfig:
    """2 x 2 x 2 cells, and 12 random latents of a 2x2 grid with 32x32 depth to train on and to measure."""
    generator = torch.Generator().manual_seed(0)
    rgb = torch.randn(12, 128, 2, 2, generator=generator).half()
    depth = (torch.rand(12, 32, 32, generator=generator) * 3 + 1).half()
    captions = json.dumps(["red cube"] * 12)
    save_file({"rgb": rgb, "depth": depth}, tmp_path / "latents-00000.safetensors", {"captions": captions})
    WordTextEncoder.random(["red", "cube"], 128, 2).save(tmp_path / "text_encoder.safetensors")
    path = tmp_path / "study.toml"
    path.write_text(STUDY.format(folder=tmp_path))
    return read_study(path)


def overrides(folder: Path) -> list[str]:
    return [*TINY, "batch_size=4", f"text_encoder={folder}", f"data.latents={folder}"]


def test_cells_differ_in_what_their_names_say(study: StudyConfig, tmp_path: Path) -> None:
    names = [cell.name for cell in cells(study)]
    assert len(names) == len(set(names)) == 8
    assert [cell.name for cell in cells(study, "w64-4-*")] == ["w64-4-dense", "w64-4-sparse"]
    settings = {cell.name: configurations(study, cell, overrides(tmp_path)) for cell in cells(study)}
    t2i, mf = settings["w64-12-sparse"]
    assert (t2i.steps, mf.steps, t2i.sizes().hidden_size, mf.sizes().hidden_size) == (3, 2, 64, 64)
    assert mf.base == t2i.out / "model" == tmp_path / "bases" / "w64-12" / "model"
    assert mf.recipe.depth_share == 0.05
    other = settings["w64-12-dense"][1]
    assert other.model_copy(update={"recipe": mf.recipe, "out": mf.out}) == mf


def test_a_study_trains_every_cell_and_goes_on(
    study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = overrides(tmp_path)
    run_study(study, only="w32-*", overrides=more, machine={"device": "a"})
    trained: list[Path] = []
    train = study_module.train

    def counted(config) -> Ended:
        trained.append(config.out)
        return train(config)

    monkeypatch.setattr(study_module, "train", counted)
    results = run_study(study, overrides=more, machine={"device": "b"})
    assert trained
    assert all("w64" in str(path) for path in trained)
    assert results == finished(study) == json.loads((study.out / "results.json").read_text())
    assert [result["cell"] for result in results] == [cell.name for cell in cells(study)]
    assert [result["machine"]["device"] for result in results] == ["a"] * 4 + ["b"] * 4
    assert all(0 < result["absrel"] < 2 and 0 <= result["delta1"] <= 1 for result in results)
    assert all(result["parameters"] > result["t2i_parameters"] for result in results)
    report = (study.out / "report.md").read_text()
    assert all(result["cell"] in report for result in results)


def test_seeds_are_runs_of_their_own_and_recipes_are_compared_within_them(
    study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = {"seeds": (3, 4), "models": study.models[:1], "pretraining_images": (4,)}
    seeded = study.model_copy(update=update)
    names = [f"w32-4-{recipe}.{seed}" for recipe in ("dense", "sparse") for seed in (3, 4)]
    assert [cell.name for cell in cells(seeded)] == names
    monkeypatch.setattr(study_module, "train", made_up)
    monkeypatch.setattr(study_module, "_parameters", lambda _: 1)
    results = run_study(seeded, overrides=overrides(tmp_path), machine={})
    assert [result["seed"] for result in results] == [3, 4, 3, 4]
    report = (study.out / "report.md").read_text()
    # Means of 0.3 and 0.4 and of 0.35 and 0.65, t of one degree of freedom: 12.706.
    assert "| w32 | 4 | dense | 2 | 0.3500 (-0.2853 to 0.9853) |  |" in report
    assert "| w32 | 4 | sparse | 2 | 0.5000 (-1.4059 to 2.4059) | 0.1500 (-1.1206 to 1.4206) |" in report


def made_up(config: TrainConfig) -> Ended:
    """A run that has an error made of its seed and its recipe."""
    config.out.mkdir(parents=True, exist_ok=True)
    sparse = config.stage == "mf" and config.recipe.depth_share < 1
    entry = {"step": config.steps, "rgb": 1.0, "heldout_rgb": 1.0, "heldout_delta1": 1.0}
    entry |= {"heldout_absrel": 0.1 * config.seed * (1 + sparse) - 0.25 * sparse + 0.1 * sparse * (config.seed == 4)}
    entry["heldout_absrel_standard_error"] = 0.01
    (config.out / "log.jsonl").write_text(json.dumps(entry) + "\n")
    return Ended(config.steps, None)


def test_the_plot_has_a_line_for_every_size_and_budget(
    study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    drawn = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    run_study(study, only="*-dense", overrides=overrides(tmp_path), machine={})
    left, right = drawn[-1].axes
    assert [line.get_label() for line in left.lines] == ["4 T2I images", "12 T2I images"]
    assert len(right.lines) == 2
    by_cell = {result["cell"]: result for result in finished(study)}
    assert list(left.lines[0].get_ydata()) == [by_cell[f"{name}-4-dense"]["absrel"] for name in ("w32", "w64")]
    assert list(right.lines[1].get_xdata()) == [4, 12]
    assert (study.out / "study.png").stat().st_size > 0


def test_a_stopped_stage_is_no_result(study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "train", lambda config: Ended(config.steps - 1, signal.SIGTERM))
    with pytest.raises(Stopped):
        run_study(study, overrides=overrides(tmp_path), machine={})
    assert finished(study) == []


def test_a_run_with_other_settings_is_not_mixed_in(study: StudyConfig, tmp_path: Path) -> None:
    more = overrides(tmp_path)
    run_study(study, only="w32-4-dense", overrides=more, machine={})
    for path in tmp_path.rglob("config.json"):  # as a version without this key wrote it
        settings = json.loads(path.read_text())
        if settings.pop("copy_parts", None) is not None:
            path.write_text(json.dumps(settings))
    run_study(study, only="w32-4-dense", overrides=more, machine={})
    with pytest.raises(ConfigError, match="other settings"):
        run_study(study, only="w32-4-*", overrides=[*more, "optimizer.learning_rate=0.1"], machine={})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[4, 12]", "[4, 13]", "13 images are no whole number of batches of 4"),
        ('"heldout.latents={folder}", "heldout.samples=3", "heldout.sampling_steps=1"', "", "heldout.latents"),
        ('name = "w64"', 'name = "w32"', "models need names of their own"),
        ('name = "w64"', 'name = "w/64"', "models.1.name"),
        ("mf_images", "images", "mf_images"),
        ("heldout.latents={folder}", "heldout.latents={folder}/none", r"heldout\.latents: .*none holds no latents"),
        ("hidden_size=64", "hidden_sise=64", "hidden_sise"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(
    study: StudyConfig, tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in STUDY
    path = tmp_path / "study.toml"
    path.write_text(STUDY.replace(old, new).format(folder=tmp_path))
    with pytest.raises(ConfigError, match=message):
        run_study(read_study(path), overrides=overrides(tmp_path), machine={})
    assert not study.bases.exists()


def test_names_of_studies_and_of_cells_are_said(study: StudyConfig) -> None:
    with pytest.raises(ConfigError, match="depth-start, recipe, scaling, sparse-depth"):
        read_study(Path("nothing"))
    with pytest.raises(ConfigError, match="w32-4-dense, w32-4-sparse"):
        cells(study, "w1-*")


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("title = ")
    with pytest.raises(ConfigError, match=r"broken\.toml cannot be read as TOML"):
        read_study(path)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_studies_of_the_package_are_valid(path: Path) -> None:
    study = read_study(Path(path.stem))
    assert all(configurations(study, cell) for cell in cells(study))
