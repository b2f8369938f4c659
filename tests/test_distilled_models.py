"""A model that says it was made for few steps: what takes its word, and what a person asks for instead."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("typer")

from typer.testing import CliRunner

from command_line import run, run_unwrapped
from mforce import Pipeline
from mforce.cli import web_app
from mforce.cli.app import app
from mforce.evaluation import nano
from mforce.mforce_core.explore.filling import FillSettings, PipelineFill
from mforce.mforce_core.model.config import ConfigError, Distilled, read_config
from mforce.mforce_core.parts import model_path
from mforce.mforce_core.release import CFG, LOG2_ALPHA
from mforce.mforce_core.rollout_settings import fitted, idle_guidance, needless_work
from mforce.mforce_core.sampling.path_spec import PathSpec
from mforce.mforce_core.settings import ALL_BUILT_IN, DEPTH_STEPS, FILL_STEPS, Settings
from mforce.mforce_core.video.writer import VideoWriter
from mforce.mforce_core.weights.header import read_header

PATH = "points 1,1 0,1 0,0"
MADE_FOR = {"steps": 3, "path": PATH, "sampler": "dpmpp_2m", "i2d_steps": 2, "d2i_steps": 5}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model, which says so."""
    folder = tmp_path_factory.mktemp("few") / "model"
    shutil.copytree(model_path("nano"), folder)
    config = json.loads((folder / "config.json").read_text()) | {"distilled": MADE_FOR}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def settings_of(output: Path) -> dict:
    return json.loads((output / "metadata.json").read_text())["settings"]


def test_the_command_line_takes_its_steps_path_and_no_guidance(model: Path, tmp_path: Path) -> None:
    run("joint", "a red sphere", "--model", model, "--output", tmp_path / "a")
    made = settings_of(tmp_path / "a")
    assert [made[name] for name in ("steps", "cfg", "path", "tilt", "sampler")] == [3, 1.0, PATH, None, "dpmpp_2m"]
    run("i2d", tmp_path / "a/rgb.png", "--model", model, "--output", tmp_path / "b")
    made = settings_of(tmp_path / "b")
    assert [made[name] for name in ("steps", "cfg", "path", "sampler")] == [2, 1.0, None, "dpmpp_2m"]
    assert "Identical" in run("rerun", tmp_path / "a", "--output", tmp_path / "c")


def test_a_clip_is_made_in_its_steps(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    with VideoWriter(tmp_path / "clip.mp4", Fraction(12)) as clip:
        for shade in (60, 200):
            clip.write(np.full((32, 32, 3), shade, np.uint8))
    for words, steps in (((), 2), (("--steps", 3), 3)):
        run(
            "video",
            tmp_path / "clip.mp4",
            "--model",
            model,
            "--size",
            "32x32",
            "--output",
            tmp_path / f"{steps}",
            *words,
        )
        made = json.loads((tmp_path / f"{steps}/metadata.json").read_text())["order"]["settings"]
        assert [made[name] for name in ("steps", "cfg")] == [steps, 1.0]


def test_what_a_person_asks_for_counts(model: Path, tmp_path: Path) -> None:
    words = ("joint", "a red sphere", "--model", model, "--steps", 2, "--tilt", 0, "--cfg", 3)
    said = run(*words, "--output", tmp_path / "a")
    made = settings_of(tmp_path / "a")
    assert [made[name] for name in ("steps", "cfg", "path", "tilt")] == [2, 3.0, None, 0]
    assert "was made for 3 steps without guidance (2 from image to depth and 5 from" in " ".join(said.split())


def test_benchmarks_run_it_as_it_was_made(model: Path, tmp_path: Path) -> None:
    run("eval", "depth", "scenes", "--scenes", 1, "--model", model, "--output", tmp_path / "depth")
    made = json.loads((tmp_path / "depth/settings.json").read_text())["made_by"]["settings"]
    assert [made[name] for name in ("steps", "cfg", "sampler")] == [2, 1.0, "dpmpp_2m"]
    said = run("eval", "d2i", "--scenes", 1, "--model", model, "--output", tmp_path / "d2i")
    assert "depth to image in 5 steps, guidance 1," in said
    assert "image to depth in 2 steps, guidance 1," in said
    said = run("eval", "d2i", "--scenes", 1, "--model", model, "--steps", 1, "--cfg", 2, "--output", tmp_path / "asked")
    assert "depth to image in 1 steps, guidance 2," in said
    assert "image to depth in 1 steps, guidance 1," in said


def test_fast_says_that_it_changes_nothing(model: Path, tmp_path: Path) -> None:
    joint = ("joint", "a red sphere", "--model", model, "--size", "32x32")
    assert "--fast changes nothing" in run_unwrapped(*joint, "--fast", "--output", tmp_path / "a")
    assert settings_of(tmp_path / "a")["path"] == PATH
    map_to_picture = ("d2i", tmp_path / "a/depth.npy", "a red sphere", "--model", model, "--follow", 1)
    assert "--fast changes nothing" in run_unwrapped(*map_to_picture, "--fast", "--output", tmp_path / "b")
    made = settings_of(tmp_path / "b")
    assert [made[name] for name in ("steps", "cfg", "path", "sampler", "follow")] == [5, 1.0, None, "dpmpp_2m", 1]


def test_the_demo_and_the_evaluation_do(model: Path, tmp_path: Path) -> None:
    run("demo", "--model", model, "--output", tmp_path / "demo")
    for folder, steps, path in (
        ("1-text-to-image-and-depth/001", 3, PATH),
        ("2-image-to-depth", 2, None),
        ("3-depth-to-image", 5, None),
    ):
        made = settings_of(tmp_path / "demo" / folder)
        assert [made[name] for name in ("steps", "cfg", "path")] == [steps, 1.0, path]
    run("demo", "--model", model, "--steps", 1, "--output", tmp_path / "one")
    assert settings_of(tmp_path / "one/3-depth-to-image")["steps"] == 1

    asked: list[dict] = []

    def sampled(*_: object, **options: object) -> tuple:
        asked.append(options)
        raise ValueError("seen enough")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nano, "sample", sampled)
        CliRunner().invoke(app, ["eval", "--model", str(model), "--scenes", "1"])
        rollouts = nano.Rollouts(
            model, model, model, steps=3, distilled=Distilled(**MADE_FOR), device="cpu", step=lambda: None
        )
        with pytest.raises(ValueError, match="seen enough"):
            rollouts.joint(["a red sphere"], 0)
    assert [(one["mode"], one["steps"], one["cfg"]) for one in asked] == [("i2d", 3, 1.0), ("joint", 3, 1.0)]
    assert [one["solver"] for one in asked] == ["dpmpp_2m"] * 2
    assert asked[1]["path"] == PathSpec.parse(PATH).build(3, rollouts.model.schedule)


def test_the_pipeline_does_too(model: Path) -> None:
    said: list[str] = []
    pipeline = Pipeline.load(model)
    pipeline.say = said.append
    made = pipeline.joint("a red sphere").settings
    assert (made.steps, made.cfg, made.path, made.tilt, made.sampler) == (3, 1.0, PATH, None, "dpmpp_2m")
    made = pipeline.job("joint", "a red sphere", steps=2, tilt=0.0, sampler="euler")
    assert (made.steps, made.cfg, made.path, made.tilt, made.sampler) == (2, 1.0, None, 0.0, "euler")
    assert said == []
    pipeline.joint("a red sphere", steps=1, cfg=2.0)
    assert len(said) == 1


def test_views_are_filled_and_the_page_runs_it_as_it_was_made(model: Path) -> None:
    few, other = Pipeline.load(model), Pipeline.load("nano")
    filling = FillSettings("a red sphere")
    assert [PipelineFill(one, filling).cfg for one in (few, other)] == [1.0, CFG["joint"]]
    assert PipelineFill(few, replace(filling, cfg=2.0)).cfg == 2.0
    taken = [PipelineFill(one, filling).settings for one in (few, other)]
    assert [(one.steps, one.depth_steps) for one in taken] == [(3, 2), (FILL_STEPS, DEPTH_STEPS)]
    assert PipelineFill(few, replace(filling, steps=7, depth_steps=0)).steps == 7
    for tilt, path in ((LOG2_ALPHA, PATH), (3.0, None)):
        job = few.job("joint", "a red sphere", steps=3, **web_app._tilted(few, tilt))
        assert (job.sampler, job.path) == ("dpmpp_2m", path)
    assert other.job("joint", "a red sphere", **web_app._tilted(other, 3.0)).path == "tilt log2_alpha=3 sigma=1.7"
    assert few.job("d2i", "a red sphere", **web_app._fast(few, "d2i")).path is None


def test_other_models_are_run_as_before() -> None:
    settings = Settings("joint", "a cube", tilt=5.0)
    assert fitted(settings, None, set()) is settings
    assert needless_work(None, 50, 4.0) is None


def test_work_that_a_model_of_few_steps_does_not_want_is_said() -> None:
    few = Distilled(4, PATH, i2d_steps=1, d2i_steps=6)
    assert [needless_work(few, steps, 1.0) for steps in (1, 4, 6, 12)] == [None] * 4
    assert "(1 from image to depth and 6 from depth to image): 50 take longer" in needless_work(few, 50, 1.0)
    assert "a cfg of 2 doubles the time" in needless_work(few, 4, 2.0)


def test_tempering_of_guidance_that_is_not_there_is_said() -> None:
    settings = Settings("joint", "a cube", cfg=1.0, cfg_interval=(0.2, 0.8), cfg_rescale=0.5)
    sentence = idle_guidance(settings)
    assert sentence is not None
    assert sentence.startswith("cfg_interval and cfg_rescale temper guidance")
    assert idle_guidance(replace(settings, cfg_interval=None)).startswith("cfg_rescale tempers guidance")
    assert idle_guidance(replace(settings, cfg=2.0)) is None
    assert idle_guidance(Settings("i2d", "", input="x.png")) is None


def test_files_carry_it_and_info_shows_it(model: Path, tmp_path: Path) -> None:
    run("convert", model, tmp_path / "one.safetensors", "--bundle")
    assert read_header(tmp_path / "one.safetensors").config.distilled == Distilled(**MADE_FOR)
    shown = json.loads(run("info", tmp_path / "one.safetensors", "--json"))
    assert shown["distilled"] == MADE_FOR
    assert "3 steps (dpmpp_2m) without guidance, 2 from" in run("info", model)


@pytest.mark.parametrize("name", ALL_BUILT_IN)
def test_a_converted_built_in_model_still_says_its_license(name: str, tmp_path: Path) -> None:
    once, twice = tmp_path / "once.safetensors", tmp_path / "twice.safetensors"
    for source, out in ((name, once), (once, twice)):
        run("convert", source, out, "--bundle")
        assert "Apache-2.0" in json.loads(run("info", out, "--json"))["license"]


@pytest.mark.parametrize(
    "value",
    [
        4,
        {"steps": 4},
        {"steps": 0, "path": ""},
        {"steps": 4, "path": 7},
        {"steps": True, "path": ""},
        {"steps": 4, "path": "", "sampler": 1},
        {"steps": 4, "path": "", "i2d_steps": 0},
        {"steps": 4, "path": "", "d2i_steps": 0},
    ],
)
def test_a_damaged_entry_is_refused(tmp_path: Path, value: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"distilled": value}))
    with pytest.raises(ConfigError, match="distilled"):
        read_config(tmp_path / "config.json")


def test_the_student_of_a_run_says_what_it_is(tmp_path: Path) -> None:
    from mforce.cli.lora_info import describe_lora
    from mforce.training.config import LoraConfig
    from mforce.training.lora import save_lora

    pairs = {"img_in.lora_A.weight": torch.zeros(2, 8), "img_in.lora_B.weight": torch.zeros(8, 2)}
    save_lora(pairs, LoraConfig(rank=2), tmp_path / "lora.safetensors", Distilled(4, PATH))
    assert describe_lora(tmp_path / "lora.safetensors").distilled == Distilled(4, PATH)
