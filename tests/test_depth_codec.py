"""The depth codec beyond the golden data: round trips, masks, refusals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mforce.mforce_core.depth.codec import (
    DepthError,
    decode_depth,
    encode_depth,
    fill_missing,
    mean_depth,
)
from mforce.mforce_core.model.tokens import patchify, unpatchify


@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e4), rows=st.integers(1, 3), columns=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_round_trip_up_to_scale(seed: int, scale: float, rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    depth = scale * torch.empty(2, 8 * rows, 8 * columns).uniform_(0.2, 5, generator=generator)
    decoded = decode_depth(encode_depth(depth, patch_size=8))
    ratio = decoded / depth
    for row in ratio:  # one scale per map
        torch.testing.assert_close(row, row.mean().expand_as(row), rtol=1e-3, atol=0)


def test_patch_layout_is_row_major() -> None:
    maps = torch.arange(4 * 6.0).view(1, 4, 6)
    tokens = patchify(maps, 2)
    assert tokens.shape == (1, 2, 3, 4)
    assert tokens[0, 1, 2].tolist() == [16.0, 17.0, 22.0, 23.0]
    assert torch.equal(unpatchify(tokens), maps)


def test_pixels_without_measurement_change_neither_scale_nor_neighbors() -> None:
    depth = torch.rand(1, 16, 16) + 0.5
    holes = depth.clone()
    holes[0, 3, 4], holes[0, 5, 6], holes[0, 7, 8], holes[0, 9, 10] = math.nan, math.inf, 0, -2
    valid = torch.ones(1, 16, 16, dtype=torch.bool)
    for row, column in ((3, 4), (5, 6), (7, 8), (9, 10)):
        valid[0, row, column] = False
    masked, marked = encode_depth(depth, valid), encode_depth(holes)
    assert torch.equal(masked, marked)
    assert (unpatchify(masked) > 0).equal(valid)
    noise = torch.randn_like(masked)
    filled = unpatchify(fill_missing(masked, noise))
    assert torch.equal(filled[~valid], unpatchify(noise)[~valid])
    assert torch.equal(filled[valid], unpatchify(masked)[valid])


def test_the_mean_depth_gives_the_unit_back() -> None:
    depth = torch.rand(2, 16, 16) * torch.tensor([3.0, 4000.0]).view(2, 1, 1) + 0.5
    depth[0, :4] = math.nan
    decoded = decode_depth(encode_depth(depth)) * mean_depth(depth)[:, None, None]
    known = torch.isfinite(depth)
    torch.testing.assert_close(decoded[known].float(), depth[known], rtol=1e-5, atol=0)
    assert mean_depth(torch.zeros(1, 4, 4)).isnan().all()


@pytest.mark.parametrize("scale", [2.0**-120, 2.0**120])
def test_no_unit_of_depth_is_too_small_or_too_large(scale: float) -> None:
    depth = torch.empty(1, 16, 16).uniform_(16, 255, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encode_depth(scale * depth), encode_depth(depth), rtol=1e-6, atol=0)


def test_constant_depth_is_one_everywhere() -> None:
    assert torch.equal(decode_depth(encode_depth(torch.full((1, 16, 16), 7.0))), torch.ones(1, 16, 16))


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (torch.ones(16, 16), r"\(B, H, W\)"),
        (torch.ones(1, 16, 20), "20x16; width and height must be multiples of 16"),
        (torch.zeros(1, 16, 16), "no valid pixel"),
        (torch.full((1, 16, 16), math.nan), "no valid pixel"),
        (-torch.ones(1, 16, 16), "no valid pixel"),
    ],
)
def test_refusals(depth: torch.Tensor, message: str) -> None:
    with pytest.raises(DepthError, match=message):
        encode_depth(depth)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(DepthError, match="valid mask"):
        encode_depth(torch.ones(1, 16, 16), torch.ones(16, 16))


def test_decoded_depth_is_positive_and_finite_or_nan() -> None:
    tokens = torch.linspace(-3, 5, 16 * 16).view(1, 1, 1, 256)
    depth = decode_depth(tokens)
    known = ~depth.isnan()
    assert (depth[known] > 0).all()
    assert torch.isfinite(depth[known]).all()
    assert known.equal((unpatchify(tokens) > 0) & (unpatchify(tokens) < 2))
