"""The options of sampling on the command line and in Pipeline, and the study of sampling, on nano at its smallest."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("typer")
pytest.importorskip("OpenEXR")

from command_line import run_unwrapped as run
from mforce import Pipeline
from mforce.evaluation import comparison, sampling_study
from mforce.evaluation.sampling_subject import Way
from mforce.mforce_core.depth.codec import encode_depth
from mforce.mforce_core.depth.ensemble import combine
from mforce.mforce_core.model.config import Schedule
from mforce.mforce_core.model.tokens import latents_to_tokens, patches_to_tokens, tokens_to_latents
from mforce.mforce_core.rollout_settings import path_of
from mforce.mforce_core.sampling.path_spec import PathSpec
from mforce.mforce_core.sampling.rollout import sample
from mforce.mforce_core.settings import Settings
from mforce.scenes import render, sample_layouts

SMALL = ("--size", "32x32", "--steps", "2")


@pytest.fixture(scope="module")
def nano() -> Pipeline:
    return Pipeline.load("nano", device="cpu")


@pytest.fixture
def picture(tmp_path) -> Path:
    pixels = np.linspace(0, 255, 24 * 40 * 3).reshape(24, 40, 3).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def settings_of(folder: Path) -> dict:
    return json.loads((folder / "metadata.json").read_text())["settings"]


def test_options_of_sampling_are_written_and_repeated(tmp_path) -> None:
    options = ("--path", "finish rgb_by=0.5 restart=1,0.5,1", "--sampler", "euler_ancestral", "--cfg-interval", "0.2,1",
               "--cfg-rescale", "0.5", "--cfg-parallel", "0.3")  # fmt: skip
    out, again = tmp_path / "out", tmp_path / "again"
    run("joint", "a red sphere", *SMALL, *options, "-o", out)
    assert "Identical" in run("rerun", out, "-o", again)
    found = settings_of(out)
    assert (found["path"], found["sampler"], found["tilt"]) == (options[1], "euler_ancestral", None)
    assert (found["cfg_interval"], found["cfg_rescale"], found["cfg_parallel"]) == ([0.2, 1], 0.5, 0.3)
    run("joint", "a red sphere", *SMALL, "-o", tmp_path / "usual")
    assert (tmp_path / "usual" / "rgb.png").read_bytes() != (out / "rgb.png").read_bytes()


def test_fast_is_what_its_help_says(tmp_path) -> None:
    run("joint", "a red sphere", "--size", "32x32", "--fast", "--tilt", 3, "-o", tmp_path / "out")
    found = settings_of(tmp_path / "out")
    assert (found["steps"], found["sampler"]) == (12, "dpmpp_2m")
    assert found["path"] == "tilt log2_alpha=3.0 sigma=1.7"


@pytest.mark.parametrize(("name", "value"), [("path", "tilt"), ("steps", "50"), ("sampler", "euler")])
def test_fast_does_not_silently_overrule_what_is_asked_for(picture, name, value) -> None:
    for command in (["joint", "a red sphere"], ["d2i", picture, "a red sphere"]):
        assert f"--fast has {name} of its own" in run(*command, "--fast", f"--{name}", value, code=2)


def test_a_run_can_start_from_content_and_be_repeated(picture, tmp_path) -> None:
    np.save(tmp_path / "depth.npy", np.linspace(1, 3, 24 * 40).reshape(24, 40))
    starts = ("--start-image", picture, "--start-depth", tmp_path / "depth.npy")
    run("joint", "a red sphere", *SMALL, *starts, "--strength", 0.3, "-o", tmp_path / "out")
    found = settings_of(tmp_path / "out")
    assert (found["image_strength"], found["depth_strength"], found["start_image"]) == (0.3, 0.3, str(picture))
    picture.rename(tmp_path / "moved.png")
    assert "say where it is with --start-image" in run("rerun", tmp_path / "out", code=2)
    moved = ("--start-image", tmp_path / "moved.png", "-o", tmp_path / "again")
    assert "Identical" in run("rerun", tmp_path / "out", *moved)
    run("d2i", tmp_path / "depth.npy", "a red sphere", *SMALL, "--start-image", tmp_path / "moved.png", "--fit", "crop",
        "-o", tmp_path / "d2i")  # fmt: skip
    assert settings_of(tmp_path / "d2i")["image_strength"] == 0.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["joint", "x", "--strength", 0.5], "--strength goes with --start-image or --start-depth"),
        (["joint", "x", "--start-image", "p.png", "--strength", 0], "must lie above 0"),
        (["joint", "x", "--start-image", "p.png", "--path", "tilt start_rgb=0.5"], "has a start of its own"),
        (["joint", "x", "--start-image", "p.png", "--path", "levels 1,1 1,0 0,0"], "levels has no start_rgb"),
        (["i2d", "p.png", "p.png", "--start-depth", "z.npy"], "--start-depth goes with one picture"),
        (["i2d", "p.png", "--strength", 0.5], "--strength goes with --start-depth"),
        (["i2d", "p.png", "--tile-strength", 0.5], "--tile-strength is for --full-size and --enlarge"),
        (["joint", "x", "--tile", 64], "--tile is for --full-size and --enlarge"),
        (["joint", "x", "--overlap", 0.3], "--overlap is for --full-size and --enlarge"),
    ],
)
def test_starts_that_cannot_be_are_refused(arguments, message) -> None:
    assert message in run(*arguments, *SMALL, code=2)


def test_the_less_noise_the_nearer_to_what_is_started_from(nano) -> None:
    scene, depth = (stream[0] for stream in render(sample_layouts(1, 5), 64))
    pixels = (scene.permute(1, 2, 0) * 255).byte().numpy()
    options = {"steps": 6, "seed": 1, "size": (64, 64)}
    parts = {}
    for strength in (0.05, 0.5, 0.95):
        result = nano.joint("a blue cube", start_image=pixels, start_depth=depth.numpy(), image_strength=strength,
                            depth_strength=strength, **options)  # fmt: skip
        relative = result.depth / np.nanmean(result.depth) / (depth / depth.mean()).numpy()
        parts[strength] = np.abs(result.image.astype(float) - pixels).mean(), np.nanmean(np.abs(relative - 1))
    assert parts[0.05][0] < parts[0.5][0] < parts[0.95][0]
    assert parts[0.05][1] < parts[0.5][1] < parts[0.95][1]
    alone = nano.joint("a blue cube", start_image=pixels, image_strength=0.05, **options)
    assert np.abs(alone.image.astype(float) - pixels).mean() < parts[0.5][0]
    made = nano.i2d(pixels, start_depth=depth.numpy(), depth_strength=0.05, **options)
    assert np.nanmean(np.abs(made.depth / np.nanmean(made.depth) / (depth / depth.mean()).numpy() - 1)) < parts[0.5][1]


def test_what_is_started_from_equals_the_rollout_by_hand(nano) -> None:
    """At strength s a stream begins at (1 - s) x + s eps, and the path is the specification's."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    found = nano.d2i(np.full((32, 32), 2.0), "a cube", start_image=pixels, image_strength=0.4, steps=3, size=(32, 32))
    clean = latents_to_tokens(nano.autoencoder.encode(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1))
    path = PathSpec("d2i", start_rgb=0.4).build(3, nano.model.schedule)
    assert path.rgb[0] == pytest.approx(0.4, abs=1e-5)
    tokens, _ = sample(nano.model, nano.features(["a cube"]), (2, 2), mode="d2i", path=path, rgb=clean,
                       depth=patches_to_tokens(encode_depth(torch.full((1, 32, 32), 2.0))),
                       null_text=nano.features([""]), seed=0)  # fmt: skip
    image = nano.autoencoder.decode(tokens_to_latents(tokens, (2, 2))).clamp(-1, 1)
    wanted = ((image + 1) * 127.5).round()[0].permute(1, 2, 0).numpy()
    assert np.abs(found.image.astype(float) - wanted).max() <= 1


def test_starts_of_the_pipeline_are_checked(nano) -> None:
    pixels, wide = np.zeros((32, 32, 3), np.uint8), np.ones((16, 32))
    with pytest.raises(ValueError, match="go together"):
        nano.joint("x", start_image=pixels, size=(32, 32))
    with pytest.raises(ValueError, match="go together"):
        nano.joint("x", image_strength=0.5, size=(32, 32))
    with pytest.raises(ValueError, match="two shapes"):
        nano.d2i(wide, "x", start_image=pixels, image_strength=0.5, size=(32, 32))
    with pytest.raises(ValueError, match="is given whole"):
        nano.i2d(pixels, image_strength=0.5, size=(32, 32))


def test_image_to_depth_takes_few_steps_and_the_steps_of_the_release_on_demand(picture, tmp_path) -> None:
    run("i2d", picture, "--size", "32x32", "-o", tmp_path / "out")
    assert settings_of(tmp_path / "out")["steps"] == 4
    run("i2d", picture, "--size", "32x32", "--steps", 50, "-o", tmp_path / "released")
    assert settings_of(tmp_path / "released")["steps"] == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--path", "spiral"], "--path cannot be used: a path is of the kind tilt"),
        (["--path", "tilt start_rgb=0.5"], "starts with the picture at noise level 0.5"),
        (["--path", "points 1,1 0.3,0"], "ends with the picture at noise level 0.3"),
        (["--path", "points 1,1 0,0.9"], "ends with the depth map at noise level 0.9"),
        (["--path", "levels 1,1 0,0"], "2 levels make 1 steps, got steps 2"),
        (["--sampler", "magic"], "--sampler must be one of euler"),
        (["--cfg-interval", "0.5"], "--cfg-interval must be two noise levels"),
        (["--cfg-interval", "0.5,0.2"], "--cfg-interval must be two noise levels"),
        (["--cfg-rescale", "2"], "--cfg-rescale must lie between 0 and 1"),
        (["--path", "tilt log2_alpha=5", "--tilt", "3"], "--path says which stream leads: leave --tilt out"),
        (["--guidance", "4"], "This model embeds no guidance scale: leave --guidance out; --cfg is"),
    ],
)
def test_impossible_options_are_refused(tmp_path, arguments, message) -> None:
    assert message in run("joint", "a red sphere", *SMALL, "-o", tmp_path / "out", *arguments, code=2)
    assert list(tmp_path.iterdir()) == []


def test_an_offset_between_maps_is_for_an_ensemble(picture, tmp_path) -> None:
    said = run("i2d", picture, *SMALL, "--align-shift", "-o", tmp_path / "out", code=2)
    assert "--align-shift goes with --ensemble" in said


@pytest.mark.parametrize("tilt", [step / 10 for step in range(-120, 121, 3)])
def test_every_tilt_starts_from_noise(tilt) -> None:
    """In float32 the tilt leaves the first level of depth below 1, as in the release."""
    path_of(Settings("joint", "a red sphere", steps=2, tilt=tilt), Schedule())


def test_following_loosely_is_between_strictly_and_not_at_all(nano) -> None:
    """On the diagonal, 0, a given depth map tells less than one that is kept clean; at -14 nearly as much."""
    depth = np.full((64, 64), 2.0, np.float32)
    depth[16:48, 16:48] = 1.0
    options = {"steps": 10, "seed": 1, "size": (64, 64)}
    frozen, strict, loose = (nano.d2i(depth, "a red cube", follow=a, **options).image for a in (None, -14.0, 0.0))
    difference = [np.abs(other.astype(int) - frozen).mean() for other in (strict, loose)]
    assert 0 < difference[0] < 0.5 * difference[1]
    with pytest.raises(ValueError, match="does not go with mode joint"):
        nano.joint("a red cube", follow=-5.0)


def test_an_ensemble_is_the_median_of_its_members(nano, tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    options = {"steps": 2, "size": (64, 48), "original_size": False}
    result = nano.i2d(pixels, ensemble=3, seed=5, **options)
    seeds = [5 + number * 1_000_003 for number in range(3)]
    members = [nano.i2d(pixels, seed=seed, **options).depth for seed in seeds]
    depth, spread = combine(torch.from_numpy(np.stack(members)))
    np.testing.assert_allclose(result.depth, depth.numpy(), rtol=1e-3)
    np.testing.assert_allclose(result.spread, spread.numpy(), atol=1e-3)
    assert result.spread.max() > 0.01
    folder = result.save(tmp_path / "out")
    assert np.array_equal(np.load(folder / "depth_spread.npy"), result.spread)
    listed = json.loads((folder / "metadata.json").read_text())["sha256"]
    assert {"depth_spread.npy", "depth_spread.png"} <= set(listed)
    with pytest.raises(ValueError, match="mode i2d"):
        nano.joint("a red cube", ensemble=2)


def test_the_spread_has_the_size_of_the_picture(picture, tmp_path) -> None:
    run("i2d", picture, *SMALL, "--ensemble", 2, "-o", tmp_path / "out")
    assert np.load(tmp_path / "out" / "depth_spread.npy").shape == (24, 40)
    assert Image.open(tmp_path / "out" / "depth_spread.png").size == (40, 24)


def test_the_study_does_not_go_on_in_tables_of_something_else(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sampling_study, "SOLVERS", {"one": Way(sampling_study.RELEASED, 1)})
    monkeypatch.setattr(sampling_study, "REFERENCE_STEPS", 1)
    file, reference = tmp_path / "tables.json", tmp_path / "reference.safetensors"
    command = ("study", "sampling", "--only", "solvers", "--count", 2, "--size", 32, "--reference", reference)
    run(*command, "--json", file)
    before = file.read_text()
    run(*command, "--json", file)
    assert file.read_text() == before
    assert "other settings" in run(*command, "--json", file, "--seed", 5, code=2)
    assert "other settings" in run(*command, "--json", file, "--count", 3, code=2)
    assert "remove this one" in run(*command, "--json", tmp_path / "new.json", "--seed", 5, code=2)
    file.write_text(before.replace("sha256", "sha255"))
    assert "another model" in run(*command, "--json", file, code=2)


def test_the_study_keeps_a_note_in_its_file(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sampling_study, "I2D_STEPS", (1,))
    command = ("study", "sampling", "--only", "i2d", "--count", 2, "--size", 32, "--json", tmp_path / "study.json")
    run(*command)
    tables = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps({"note": "seen twice"} | tables))
    monkeypatch.setattr(sampling_study, "I2D_STEPS", (1, 2))
    run(*command)
    found = json.loads((tmp_path / "study.json").read_text())
    assert (found["note"], len(found["tables"]["i2d"]["rows"])) == ("seen twice", 2)


def test_the_study_measures_errors_and_counts_calls(monkeypatch, tmp_path) -> None:
    """Against a reference that is one of its ways, that way has no error, and another has."""
    ways = {
        "same": Way(sampling_study.RELEASED, 4),
        "heun": Way(sampling_study.RELEASED, 4, "heun"),
        "interval": Way(sampling_study.RELEASED, 4, cfg_interval=(0.6, 1.0)),
    }
    monkeypatch.setattr(sampling_study, "SOLVERS", ways)
    monkeypatch.setattr(sampling_study, "PATHS", {"diagonal": Way("tilt log2_alpha=0", 2)})
    monkeypatch.setattr(sampling_study, "I2D_STEPS", (1, 2))
    monkeypatch.setattr(sampling_study, "FOLLOW", (None, 3.0))
    monkeypatch.setattr(sampling_study, "MEASURED", (0.1,))
    monkeypatch.setattr(sampling_study, "ENSEMBLE", ((2, 1),))
    monkeypatch.setattr(sampling_study, "REFERENCE_STEPS", 4)
    file = tmp_path / "tables.json"
    command = (
        "study",
        "sampling",
        "--count",
        3,
        "--size",
        64,
        "--json",
        file,
        "--reference",
        tmp_path / "reference.safetensors",
    )
    run(*command, "--only", "solvers")
    run(*command, "--only", "paths,i2d,follow,completion,ensemble")
    tables = {name: table["rows"] for name, table in json.loads(file.read_text())["tables"].items()}
    assert list(tables) == ["solvers", "paths", "i2d", "follow", "completion", "ensemble"]
    same, heun, interval = tables["solvers"]
    assert same["psnr"] == pytest.approx(120)
    assert same["depth_absrel"] < 1e-6
    assert 5 < heun["psnr"] < 60
    assert heun["intervals"]["psnr"][0] < heun["psnr"] < heun["intervals"]["psnr"][1]
    # Heun's last step is one prediction; the interval leaves out the levels below 0.6: shift(1/2) and below are not.
    assert [row["passes"] for row in (same, heun, interval)] == [8, 14, 7]
    assert [row["passes"] for row in tables["i2d"]] == [1, 2]
    assert tables["completion"][0]["completed_absrel"] < 0.8 * tables["completion"][0]["scaled_absrel"]
    assert set(tables["ensemble"][0]) >= {"certain_80_percent_absrel", "spearman_of_spread_and_error"}
    assert run(*command, "--only", "solvers") == ""  # all known
    assert "not magic" in run("study", "sampling", "--only", "magic", code=2)


def test_the_looks_of_a_way_are_held_against_the_releases(monkeypatch, tmp_path) -> None:
    """A way that is the release's own has its pictures; another solver makes others, at its own cost."""
    monkeypatch.setattr(sampling_study, "STEPS", 2)
    same, other = Way(sampling_study.RELEASED, 2), Way(sampling_study.RELEASED, 2, "dpmpp_2m", cfg=1.0)
    monkeypatch.setattr(sampling_study, "LOOKS", {"same": same, "other": other})
    file = tmp_path / "tables.json"
    command = (
        "study",
        "sampling",
        "--only",
        "looks",
        "--count",
        4,
        "--size",
        32,
        "--reference",
        tmp_path / "kept.safetensors",
    )
    run(*command, "--json", file)
    release, same_row, other_row = json.loads(file.read_text())["tables"]["looks"]["rows"]
    assert release["name"] == "Euler, the release's 2"
    assert "over_release" not in release
    assert same_row["over_release"]["joint_absrel"] == [1, 1, 1]
    assert same_row["minus_release"]["shape_error"] == [0, 0, 0]
    assert same_row["joint_frechet"] == release["joint_frechet"]
    assert other_row["joint_absrel"] != release["joint_absrel"]
    assert other_row["cfg"] == 1

    make, made = comparison.make, []
    monkeypatch.setattr(comparison, "make", lambda *given: made.append(given) or make(*given))
    run(*command, "--json", tmp_path / "again.json")
    assert len(made) == 2  # the release's pictures were kept
    again = json.loads((tmp_path / "again.json").read_text())["tables"]["looks"]["rows"]
    assert again == [release, same_row, other_row]
