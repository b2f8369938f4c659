"""How pictures look: seams, sharpness, outlines and hues on pictures made by hand, the judge on renders."""

import colorsys

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from mforce.evaluation import intervals
from mforce.evaluation.appearance import column_steps, dominant_hue, object_mask, roundness, seam_steps, sharpness
from mforce.evaluation.judge import load_judge, lone_objects
from mforce.evaluation.nano import HUES, object_prompts
from mforce.mforce_core.encoders.words import WordTextEncoder
from mforce.scenes import render
from mforce.scenes.vocabulary import COLOR_HUES, COLORS, SHAPES, VOCABULARY


def seam_ratio(maps: torch.Tensor) -> float:
    return intervals.ratio(seam_steps(maps)).value


def test_seams_show_where_tokens_differ_by_a_step() -> None:
    ramp = torch.linspace(0, 1, 64).expand(3, 64, 64)
    assert seam_ratio(ramp) == pytest.approx(1, rel=1e-3)
    tokens = 0.5 / 63 * (torch.arange(64) // 16)
    assert seam_ratio(ramp + tokens) == pytest.approx(1.5, rel=1e-3)
    shifted = (ramp + tokens)[..., 8:]
    assert seam_ratio(shifted) < 1.1  # the same steps, but inside tokens


@pytest.mark.parametrize("shift", [0, 5, 8])
def test_a_grid_shows_wherever_in_the_tokens_it_lies(shift: int) -> None:
    ramp = torch.linspace(0, 1, 96).repeat(2, 3, 8, 1)
    stairs = 1 / 95 * ((torch.arange(96) + shift) // 16)
    assert intervals.unevenness(column_steps(ramp)).value == pytest.approx(1, rel=1e-3)
    assert intervals.unevenness(column_steps(ramp + stairs)).value == pytest.approx(2 / (17 / 16), rel=1e-3)


def test_seams_leave_unknown_pixels_out() -> None:
    maps = torch.linspace(0, 1, 64).repeat(1, 8, 1)
    maps[:, :, 20:30] = torch.nan
    assert seam_ratio(maps) == pytest.approx(1, rel=1e-3)


def test_blurring_cannot_pass() -> None:
    picture = torch.from_numpy(np.random.default_rng(0).random((1, 64, 64)).round())
    blurred = torch.from_numpy(gaussian_filter(picture.numpy(), (0, 2, 2)))
    assert sharpness(blurred).item() < 0.3 * sharpness(picture).item()
    seams = picture + torch.arange(64) // 16
    assert sharpness(seams).item() == pytest.approx(sharpness(picture).item())  # a seam is no sharpness


def disc(radius: float, stretch: float = 1.0) -> np.ndarray:
    rows, columns = np.indices((64, 64)) - 31.3
    return np.hypot(rows * stretch, columns / stretch) <= radius


def test_roundness_of_discs_ellipses_and_squares() -> None:
    assert roundness(disc(18)) > 0.97
    square = np.zeros((64, 64), bool)
    square[16:48, 16:48] = True
    assert roundness(square) == pytest.approx(0.83, abs=0.02)  # by geometry: 0.834
    assert roundness(disc(18, 1.5)) < 0.7
    assert roundness(np.zeros((8, 8), bool)) == 0


def test_roundness_ignores_highlights_and_specks() -> None:
    marked = disc(18)
    whole = roundness(marked)
    marked[28:32, 28:32] = False
    marked[0, 0] = True
    assert roundness(marked) == whole


def test_rendered_spheres_are_round() -> None:
    layout = lone_objects(8, seed=3, shape="sphere")
    images = render(layout, 128)[0]
    found = [roundness(object_mask(im, HUES, int(c))) for im, c in zip(images, layout.color[:, 0], strict=True)]
    assert np.mean(found) > 0.95
    cubes = lone_objects(8, seed=3, shape="cube")
    others = [
        roundness(object_mask(im, HUES, int(c))) for im, c in zip(render(cubes, 128)[0], cubes.color[:, 0], strict=True)
    ]
    assert np.mean(others) < 0.93


def test_the_judge_names_rendered_solids() -> None:
    layout = lone_objects(64, seed=11)
    named = load_judge().shapes(render(layout, 128)[0])
    assert (named == layout.shape[:, 0]).float().mean() > 0.93
    assert len(named.unique()) == len(SHAPES)


def test_lone_objects_are_alone_and_stay_the_same() -> None:
    few, more = lone_objects(3, 5, "cone"), lone_objects(9, 5, "cone")
    assert (more.exists.sum(1) == 1).all()
    assert (more.shape[:, 0] == SHAPES.index("cone")).all()
    assert torch.equal(few.position, more.position[:3])


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(200):
        estimate = intervals.mean(3 + torch.randn(60, generator=generator))
        held += estimate.low <= 3 <= estimate.high
    assert 0.9 <= held / 200 <= 0.99
    same = intervals.mean(torch.ones(5))
    assert same == (1, 1, 1)


@pytest.mark.parametrize("name", COLOR_HUES)
def test_dominant_hue_of_each_color(name: str) -> None:
    names = list(COLOR_HUES)
    image = torch.full((3, 10, 10), 0.6)  # gray surroundings do not count, nor does a minority
    image[:, :4] = torch.tensor(colorsys.hsv_to_rgb(COLOR_HUES[name] / 360, 0.9, 0.8))[:, None, None]
    other = COLOR_HUES[names[names.index(name) - 1]]
    image[:, 9] = torch.tensor(colorsys.hsv_to_rgb(other / 360, 0.9, 0.8))[:, None]
    assert names[dominant_hue(image, torch.tensor(list(COLOR_HUES.values())))] == name


def test_a_gray_image_has_no_hue() -> None:
    assert dominant_hue(torch.full((3, 4, 4), 0.5), torch.tensor([0.0, 120.0])) == -1


def test_prompts_say_what_they_ask_for_and_are_in_the_vocabulary() -> None:
    encoder = WordTextEncoder.random(VOCABULARY, 2, 16)
    prompts = object_prompts()
    assert not [word for prompt in prompts for word in encoder.unknown_words(prompt.text)]
    assert all(COLORS[prompt.color] in prompt.text and SHAPES[prompt.shape] in prompt.text for prompt in prompts)
