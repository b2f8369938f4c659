"""Depth patches that overlap: an orthogonal change of basis, undone to the last digits, and known from the file."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.fft import dct, dst

from mforce.mforce_core import load_model
from mforce.mforce_core.model.config import Architecture, ConfigError
from mforce.mforce_core.model.lapped import LappedPatches, border_filter
from mforce.mforce_core.model.tokens import patches_to_tokens, patchify, tokens_to_patches, unpatchify
from mforce.mforce_core.model.transformer import ModalityForcingTransformer
from mforce.mforce_core.weights.checkpoint import read_header, save_model

CUT = Architecture(
    in_channels=8,
    depth_channels=16,
    context_in_dim=12,
    hidden_size=32,
    num_heads=2,
    depth_double=1,
    depth_single=1,
    depth_decoder_num_layers=1,
    axes_dim=(4, 4, 4, 4),
)
LAPPED = replace(CUT, depth_lapped=True)
GRID = (3, 5)


def tokens(maps: torch.Tensor, side: int) -> torch.Tensor:
    return patches_to_tokens(patchify(maps, side))


def maps(of: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    return unpatchify(tokens_to_patches(of, grid))


@pytest.mark.parametrize("side", [4, 16])
def test_the_filter_is_that_of_the_lapped_orthogonal_transform(side: int) -> None:
    """Figure 8 of Tran, Liang & Tu, with the transforms of scipy: sums pass, differences turn by C2^T S4."""
    half = side // 2
    pixels = np.random.default_rng(0).normal(size=side)
    left, right = pixels[:half][::-1], pixels[half:]
    sums, differences = left + right, left - right
    turned = dct(dst(differences, type=4, norm="ortho"), type=3, norm="ortho")  # III is the inverse of II
    expected = np.concatenate([((sums + turned) / 2)[::-1], (sums - turned) / 2])
    np.testing.assert_allclose(border_filter(side) @ pixels, expected, atol=1e-12)


def test_the_change_of_basis_is_orthogonal_and_keeps_constants() -> None:
    """Its matrix, column by column: one for every pixel of a map of 3 x 2 patches."""
    patches, grid = LappedPatches(4), (3, 2)
    basis = torch.eye(6 * 16).reshape(-1, 12, 8)
    matrix = patches.lap(tokens(basis, 4), grid).flatten(1)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(6 * 16), atol=1e-6, rtol=0)
    flat = tokens(torch.full((1, 12, 8), 0.7), 4)
    torch.testing.assert_close(patches.lap(flat, grid), flat, atol=1e-6, rtol=0)


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (4, 1), (3, 5)])
def test_undone_by_its_inverse(grid: tuple[int, int]) -> None:
    given = torch.randn(2, grid[0] * grid[1], 256, generator=torch.Generator().manual_seed(0))
    patches = LappedPatches(16)
    lapped = patches.lap(given, grid)
    torch.testing.assert_close(patches.unlap(lapped, grid), given, atol=2e-6, rtol=0)
    assert torch.equal(lapped, given) == (grid == (1, 1))  # a border is what changes anything


def test_rows_and_columns_are_told_apart() -> None:
    """Along a map of one row of patches only columns mix."""
    given = torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(0))
    wide = maps(LappedPatches(16).lap(tokens(given, 16), (1, 4)), (1, 4))
    row = torch.zeros_like(given)
    row[:, 3] = given[:, 3]
    alone = maps(LappedPatches(16).lap(tokens(row, 16), (1, 4)), (1, 4))
    torch.testing.assert_close(wide[:, 3], alone[:, 3])
    assert alone[:, :3].eq(0).all()
    assert not torch.equal(wide, given)


def test_a_token_that_is_off_leaves_no_step() -> None:
    """What this is for: the largest difference of neighbors that an offset of one token makes."""
    wrong = torch.zeros(1, 9, 256)
    wrong[:, 4] = 1
    steps = {}
    for name, map_ in (("cut", wrong), ("lapped", LappedPatches(16).unlap(wrong, (3, 3)))):
        steps[name] = maps(map_, (3, 3)).diff(dim=-1).abs().max().item()
    assert steps["cut"] == 1
    assert steps["lapped"] < 0.25  # at the far ends of the window, in the middle of the neighbors


def test_nothing_outside_the_model_sees_it() -> None:
    torch.manual_seed(0)
    cut, lapped = ModalityForcingTransformer(CUT), ModalityForcingTransformer(LAPPED)
    for parameter in cut.parameters():  # the last layers start at zero
        torch.nn.init.normal_(parameter, std=0.1)
    lapped.load_state_dict(cut.state_dict(), strict=False)
    rgb, depth, text = torch.randn(2, 15, 8), torch.randn(2, 15, 16), torch.randn(2, 7, 12)
    times = torch.tensor([0.3, 0.8]), torch.tensor([0.6, 0.1])
    patches = LappedPatches(4)
    velocity, clean = lapped(rgb, depth, text, *times, GRID)
    expected, inside = cut(rgb, patches.lap(depth, GRID), text, *times, GRID)
    torch.testing.assert_close(velocity, expected)
    torch.testing.assert_close(clean, patches.unlap(inside, GRID))
    assert not torch.allclose(clean, inside, atol=1e-3)


def test_training_may_follow_inference_in_one_process() -> None:
    model = ModalityForcingTransformer(LAPPED)
    inputs = torch.randn(1, 15, 8), torch.randn(1, 15, 16), torch.randn(1, 7, 12), torch.ones(1), torch.ones(1), GRID
    with torch.inference_mode():
        model(*inputs)
    rgb, depth = model(*inputs)
    (rgb.square().sum() + (depth - 1).square().sum()).backward()
    assert model.depth_final_layer.linear.weight.grad.abs().sum() > 0


def test_a_file_without_its_configuration_tells_it(tmp_path: Path) -> None:
    for name, architecture in (("cut", CUT), ("lapped", LAPPED)):
        save_model(ModalityForcingTransformer(architecture), tmp_path / name)
        alone = tmp_path / f"{name}.safetensors"
        shutil.copy(tmp_path / name / "model.safetensors", alone)
        for path in (alone, tmp_path / name):
            assert read_header(path).architecture.depth_lapped == (name == "lapped")
            assert (load_model(path).lapped is not None) == (name == "lapped")


def test_an_odd_patch_cannot_overlap_by_half() -> None:
    with pytest.raises(ConfigError, match="depth_lapped needs patches of an even side, not of 5 pixels"):
        replace(CUT, depth_channels=25, depth_lapped=True)
