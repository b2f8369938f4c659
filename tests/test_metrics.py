"""Depth errors and dominant hue on cases worked out by hand."""

import colorsys
import math

import pytest
import torch

from mforce.evaluation.metrics import abs_rel, align_median, constant_depth, delta1, dominant_hue
from mforce.evaluation.nano import color_prompts
from mforce.mforce_core.encoders.words import WordTextEncoder
from mforce.scenes.vocabulary import COLOR_HUES, VOCABULARY


def test_errors_by_hand() -> None:
    reference = torch.tensor([[[1.0, 2.0, 4.0, math.nan]]])
    prediction = torch.tensor([[[1.1, 1.0, math.nan, 5.0]]])
    assert float(abs_rel(prediction, reference)) == pytest.approx((0.1 + 0.5 + 1.0) / 3)
    assert float(delta1(prediction, reference)) == pytest.approx(1 / 3)


def test_alignment_removes_scale() -> None:
    reference = torch.rand(3, 8, 8) + 0.5
    scaled = reference * torch.tensor([0.1, 1.0, 30.0])[:, None, None]
    torch.testing.assert_close(align_median(scaled, reference), reference)
    once, again = (align_median(k * constant_depth(reference), reference) for k in (1, 7))
    torch.testing.assert_close(once, again)


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


def test_color_prompts_are_in_the_vocabulary() -> None:
    encoder = WordTextEncoder.random(VOCABULARY, 2, 16)
    assert not [word for prompt, _ in color_prompts() for word in encoder.unknown_words(prompt)]
