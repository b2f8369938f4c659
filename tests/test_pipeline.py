"""The Python interface: the same results as the command line and as the parts by hand, in batches too."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("OpenEXR")
pytest.importorskip("trimesh")

from mforce import Pipeline
from mforce.mforce_core import decode_depth, load_autoencoder, load_model, load_text_encoder, sample
from mforce.mforce_core.encoders.familiarity import UNFAMILIAR
from mforce.mforce_core.inputs import Given
from mforce.mforce_core.model.tokens import tokens_to_latents, tokens_to_patches
from mforce.mforce_core.parts import model_path
from mforce.scenes import render, sample_layouts

ROOT = Path(__file__).parent.parent
NANO = model_path("nano")
PROMPT = "a red sphere on a wooden floor"


@pytest.fixture(scope="module")
def nano() -> Pipeline:
    return Pipeline.load("nano", device="cpu")


def test_joint_is_what_the_parts_give(nano):
    result = nano.joint(PROMPT, seed=3, steps=2, size=(64, 48))
    words = load_text_encoder(NANO)
    rgb, depth = sample(
        load_model(NANO, dtype=torch.float32),
        words.encode([PROMPT]),
        (3, 4),
        steps=2,
        cfg=4.0,
        log2_alpha=5.0,
        null_text=words.encode([""]),
        seed=3,
    )
    with torch.no_grad():
        picture = load_autoencoder(NANO, dtype=torch.float32).decode(tokens_to_latents(rgb, (3, 4)))[0]
    pixels = ((picture.clamp(-1, 1) + 1) * 127.5).round().movedim(0, -1)
    assert result.image.shape == (48, 64, 3)
    assert np.array_equal(result.image, pixels.numpy())
    assert np.array_equal(result.depth, decode_depth(tokens_to_patches(depth, (3, 4)))[0].numpy(), equal_nan=True)
    assert np.array_equal(result.mask, np.isfinite(result.depth))


def test_a_batch_gives_every_seed_what_it_gives_alone(nano):
    jobs = [nano.job("joint", PROMPT, seed=seed, steps=2, tilt=5.0, refine_depth=True) for seed in (5, 6)]
    jobs[1] = replace(jobs[1], prompt="a blue cube")
    together = nano.generate(jobs, [Given(), Given()])
    for job, found in zip(jobs, together, strict=True):
        (alone,) = nano.generate([job], [Given()])
        # A larger batch takes other paths through the matrix products, so the last bits may differ.
        assert np.abs(found.image.astype(int) - alone.image).max() <= 1
        np.testing.assert_allclose(found.depth, alone.depth, rtol=1e-3)
        assert found.settings == job
    assert np.abs(together[0].image.astype(int) - together[1].image).max() > 50
    with pytest.raises(ValueError, match="differ in prompt, seed and input alone"):
        nano.generate([jobs[0], replace(jobs[1], steps=3)], [Given(), Given()])


def test_i2d_takes_files_pictures_and_arrays_alike(nano, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    results = [
        nano.i2d(picture, steps=1, size=(64, 64))
        for picture in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels)
    ]
    assert all(np.array_equal(r.depth, results[0].depth, equal_nan=True) for r in results)
    assert results[0].depth.shape == (40, 64)
    assert np.array_equal(results[0].image, pixels)
    assert results[0].settings.input == str(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
        nano.i2d(pixels / 255)


def test_d2i_returns_the_given_depth_and_crops_on_demand(nano):
    depth = np.linspace(1, 3, 64 * 96, dtype=np.float64).reshape(64, 96)
    depth[:8] = 0
    result = nano.d2i(depth, PROMPT, steps=1, size=(64, 64), fit="crop")
    assert result.depth.shape == (64, 64)
    assert np.array_equal(result.depth[8:], depth[8:, 16:80].astype(np.float32))
    assert not result.mask[:8].any()
    assert result.origin["notes"] == ["The depth map is 96x64, cropped to 64x64."]
    with pytest.raises(ValueError, match="must be"):
        nano.d2i(depth[None], PROMPT)


def test_a_picture_that_nano_does_not_know_is_a_note(nano, monkeypatch):
    """Noise with the spectrum of photographs, and a rendered scene."""
    said = []
    monkeypatch.setattr(nano, "say", said.append)
    rows, columns = np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128), indexing="ij")
    amplitude = 1 / np.maximum(np.hypot(rows, columns), 1 / 128)
    noise = np.random.default_rng(0).standard_normal((3, 128, 128))
    natural = np.fft.ifft2(np.fft.fft2(noise) * amplitude).real
    natural = np.clip(110 + 50 * natural / natural.std(), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    rendered = (render(sample_layouts(1, 1_000_000), 128)[0][0] * 255).byte().permute(1, 2, 0).numpy()
    results = [nano.i2d(picture, steps=1) for picture in (natural, rendered)]
    assert [result.origin["notes"] for result in results] == [[UNFAMILIAR], []]
    assert said == [UNFAMILIAR]


def test_a_model_of_other_pictures_with_the_autoencoder_of_nano_is_not_said_to_be_nano(nano, tmp_path):
    """As docs/training.md trains one on pictures of one's own."""
    model = tmp_path / "model"
    model.mkdir()
    for name in ("model.safetensors", "config.json"):
        (model / name).symlink_to(NANO / name)
    own = Pipeline.load(model, text_encoder=NANO, vae=NANO, device="cpu")
    white = np.full((128, 128, 3), 255, np.uint8)
    assert [made.i2d(white, steps=1).origin["notes"] for made in (nano, own)] == [[UNFAMILIAR], []]


def test_progress_counts_the_refining_steps_and_can_stop(nano):
    seen = []
    nano.joint(
        PROMPT, steps=2, refine_depth=True, size=(32, 32), progress=lambda step, steps: seen.append((step, steps))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def stop(step: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nano.joint(PROMPT, steps=2, size=(32, 32), progress=stop)


def test_a_saved_result_agrees_with_itself_and_with_the_command_line(nano, tmp_path):
    pytest.importorskip("typer")
    from typer.testing import CliRunner

    from mforce.cli.app import app

    result = nano.joint(PROMPT, steps=2, seed=4, size=(64, 64))
    folder = result.save(tmp_path / "python")
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["cloud"]["points"] == len(result.point_cloud())
    assert metadata["cloud"]["normalized_intrinsics"] == result.camera.tolist()
    assert metadata["depth"]["missing_pixels"] == (~result.mask).sum()
    with pytest.raises(ValueError, match="already holds files"):
        result.save(folder)
    result.save(folder, overwrite=True)

    arguments = ["joint", PROMPT, "--steps", "2", "--seed", "4", "--size", "64x64", "--device", "cpu"]
    run = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "command")])
    assert run.exit_code == 0, run.output
    other = json.loads((tmp_path / "command" / "metadata.json").read_text())
    assert other == metadata
    assert {file.name for file in folder.iterdir()} == {file.name for file in (tmp_path / "command").iterdir()}
    again = CliRunner().invoke(app, ["rerun", str(folder), "-o", str(tmp_path / "again")])
    assert "Identical" in again.output


def test_settings_are_checked_by_their_own_names(nano):
    for settings, message in (
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"steps": 10_001}, "`steps` must be at most 10,000"),
        ({"size": (40, 32)}, "Use `size` 32x32"),
        ({"device": "cpu"}, "device cannot change"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            nano.joint(PROMPT, **settings)
    with pytest.raises(TypeError, match="seeds"):
        nano.joint(PROMPT, seeds=3)
    with pytest.raises(ValueError, match="'abacus' cannot be used"):
        Pipeline.load("nano", device="abacus")


def test_the_documented_example_runs(tmp_path, monkeypatch):
    """The three lines in the module's docstring, as they stand there."""
    from mforce.mforce_core import pipeline

    lines = re.findall(r"^>>> (.*)$", pipeline.__doc__, re.MULTILINE)
    assert len(lines) == 3
    monkeypatch.chdir(tmp_path)
    exec("\n".join(lines), {})
    assert (tmp_path / "out" / "cloud.glb").stat().st_size > 0
