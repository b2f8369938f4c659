"""Guidance: its formula, where it acts, and what tempers it."""

import pytest
import torch

from mforce.mforce_core.sampling.guidance import Guidance, Prediction

T = 0.6


@pytest.fixture
def predictions() -> tuple[torch.Tensor, Prediction, Prediction]:
    generator = torch.Generator().manual_seed(0)
    rgb, velocity, other = torch.randn(3, 2, 6, 4, generator=generator)
    depth, other_depth = torch.rand(2, 2, 6, 9, generator=generator)
    return rgb, Prediction(velocity, depth), Prediction(other, other_depth)


def clean(rgb: torch.Tensor, prediction: Prediction) -> torch.Tensor:
    return rgb - T * prediction.rgb_velocity


def test_the_scale_goes_on_beyond_the_prompt(predictions) -> None:
    rgb, conditional, unconditional = predictions
    found = Guidance(3.0).combine(conditional, unconditional, rgb, T)
    for ours, a, b in zip(found, conditional, unconditional, strict=True):
        torch.testing.assert_close(ours, 3 * a - 2 * b)


def test_without_a_parallel_part_the_clean_picture_does_not_grow_along_itself(predictions) -> None:
    """What guidance adds to the clean picture is at right angles to the prompt's own clean picture."""
    rgb, conditional, unconditional = predictions
    found = Guidance(4.0, parallel=0.0).combine(conditional, unconditional, rgb, T)
    base = clean(rgb, conditional)
    added = clean(rgb, found) - base
    assert float((added * base).sum((1, 2)).abs().max()) < 1e-3 * float(added.norm() * base.norm())
    plain = clean(rgb, Guidance(4.0).combine(conditional, unconditional, rgb, T)) - base
    along = (plain * base).sum((1, 2), keepdim=True) / base.square().sum((1, 2), keepdim=True) * base
    torch.testing.assert_close(added, plain - along, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.depth_x0, 4 * conditional.depth_x0 - 3 * unconditional.depth_x0)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_rescaling_takes_the_added_contrast_back(predictions, share: float) -> None:
    rgb, conditional, unconditional = predictions
    contrast = [
        clean(rgb, guidance.combine(conditional, unconditional, rgb, T)).std((1, 2))
        for guidance in (Guidance(4.0), Guidance(4.0, rescale=share))
    ]
    wanted = clean(rgb, conditional).std((1, 2))
    torch.testing.assert_close(contrast[1], share * wanted + (1 - share) * contrast[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"rescale": 0.7}, {"parallel": 0.0}])
def test_a_clean_picture_is_not_tempered(predictions, options: dict) -> None:
    """In image to depth, where its velocity is not used and depth is guided as ever."""
    rgb, conditional, unconditional = predictions
    found = Guidance(4.0, **options).combine(conditional, unconditional, rgb, 0.0)
    plain = Guidance(4.0).combine(conditional, unconditional, rgb, 0.0)
    assert all(torch.equal(ours, wanted) for ours, wanted in zip(found, plain, strict=True))


def test_a_scale_of_one_and_levels_outside_need_no_second_call() -> None:
    guidance = Guidance(4.0, interval=(0.2, 0.8))
    assert [guidance.acts_at(level) for level in (0.1, 0.2, 0.5, 0.8, 0.9)] == [False, True, True, True, False]
    assert not Guidance(1.0).acts_at(0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": -1.0}, "cfg must be"),
        ({"scale": float("nan")}, "cfg must be"),
        ({"scale": 4.0, "interval": (0.5, 0.2)}, "interval of guidance"),
        ({"scale": 4.0, "interval": (0.0, 1.2)}, "interval of guidance"),
        ({"scale": 4.0, "rescale": 1.5}, "rescale of guidance"),
        ({"scale": 4.0, "parallel": float("nan")}, "parallel of guidance"),
    ],
)
def test_refusals(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Guidance(**options)
