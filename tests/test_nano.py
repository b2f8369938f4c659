"""The weights that ship: size, what they can do on a few held-out scenes, and that they are the documented files.

The full evaluation is ``mforce eval``; this is its small, quick part, against the constant-depth baseline.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mforce import Pipeline
from mforce.evaluation import showcase
from mforce.evaluation.appearance import dominant_hue
from mforce.evaluation.metrics import abs_rel, align_median, constant_depth, delta1
from mforce.mforce_core import decode_depth, encode_depth, load_autoencoder, load_model, load_text_encoder, sample
from mforce.scenes import captions, render, sample_layouts
from mforce.scenes.vocabulary import COLOR_HUES, COLORS, VOCABULARY

NANO = Path(__file__).parent.parent / "models" / "nano"
GRID = (8, 8)


@pytest.fixture(scope="module")
def model():
    return load_model(NANO, dtype=torch.float32)


@pytest.fixture(scope="module")
def words():
    return load_text_encoder(NANO)


@pytest.fixture(scope="module")
def autoencoder():
    return load_autoencoder(NANO)


@pytest.fixture(scope="module")
def scenes() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (8, 3, 128, 128) in [-1, 1] and exact depth (8, 128, 128), of a seed that training never saw."""
    rgb, depth = render(sample_layouts(8, 2_000_000), 128)
    return rgb * 2 - 1, depth


def tokens(latent: torch.Tensor) -> torch.Tensor:
    return latent.flatten(2).transpose(1, 2)


def image_to_depth(model, words, rgb_tokens: torch.Tensor) -> torch.Tensor:
    text = words.encode([""]).expand(len(rgb_tokens), -1, -1)
    _, depth = sample(model, text, GRID, mode="i2d", steps=8, rgb=rgb_tokens)
    return decode_depth(depth.unflatten(1, GRID))


def test_everything_fits_in_40_megabytes() -> None:
    assert sum(file.stat().st_size for file in NANO.rglob("*") if file.is_file()) <= 40e6


def test_the_vocabulary_is_the_scenes(words) -> None:
    assert words.vocabulary == VOCABULARY


def test_autoencoder_restores_held_out_images(autoencoder, scenes) -> None:
    image, _ = scenes
    error = (autoencoder.decode(autoencoder.encode(image)).clamp(-1, 1) - image) / 2
    assert float(-10 * error.square().mean().log10()) > 30


def test_depth_from_image_is_far_better_than_a_constant(model, words, autoencoder, scenes) -> None:
    image, exact = scenes
    depth = align_median(image_to_depth(model, words, tokens(autoencoder.encode(image))), exact)
    baseline = align_median(constant_depth(exact), exact)
    assert float(abs_rel(depth, exact).mean()) < 0.3 * float(abs_rel(baseline, exact).mean())
    assert float(delta1(depth, exact).mean()) > 0.85


def test_image_from_depth_has_that_depth(model, words, scenes) -> None:
    _, exact = scenes
    clean = encode_depth(exact).flatten(1, 2)
    text, null = words.encode(["a red sphere on a wooden floor"] * len(exact)), words.encode([""])
    made, unchanged = sample(model, text, GRID, mode="d2i", steps=12, depth=clean, null_text=null)
    assert torch.equal(unchanged, clean)
    depth = align_median(image_to_depth(model, words, made), exact)
    baseline = align_median(constant_depth(exact), exact)
    assert float(abs_rel(depth, exact).mean()) < 0.6 * float(abs_rel(baseline, exact).mean())


def test_prompted_colors_show(model, words, autoencoder) -> None:
    prompts = [f"a large {color} cube on a concrete floor" for color in COLORS]
    rgb, _ = sample(model, words.encode(prompts), GRID, steps=16, log2_alpha=5.0, null_text=words.encode([""]), seed=3)
    images = autoencoder.decode(rgb.transpose(1, 2).unflatten(2, GRID)).clamp(-1, 1) / 2 + 0.5
    hues = torch.tensor(list(COLOR_HUES.values()))
    right = [dominant_hue(image, hues) == index for index, image in enumerate(images)]
    assert sum(right) >= 6


def test_the_page_of_samples(tmp_path):
    """Every sample is what its seed and prompt give alone, and the page lists them."""
    pytest.importorskip("OpenEXR")
    pytest.importorskip("trimesh")
    pipeline = Pipeline.load("nano", device="cpu")
    showcase.write(pipeline, tmp_path, steps=2, samples=3)
    page = (tmp_path / "nano-samples.md").read_text(encoding="utf-8")
    prompts = captions(sample_layouts(3, showcase.CAPTION_SEED))
    assert [f"| {seed} | {text} |" in page for seed, text in enumerate(prompts)] == [True] * 3
    sheet = np.asarray(Image.open(tmp_path / "images" / "nano_samples.jpg")).astype(int)
    alone = pipeline.joint(prompts[2], seed=2, steps=2).image
    assert np.abs(sheet[:128, 2 * 260 : 2 * 260 + 128] - alone).mean() < 8
    assert Image.open(tmp_path / "images" / "demo.png").width > 1000
