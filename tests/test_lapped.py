"""Depth patches that overlap: an orthogonal change of basis, undone to the last digits, and known from the file."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mforce.mforce_core import load_model
from mforce.mforce_core.depth.codec import encode_depth
from mforce.mforce_core.model.config import ConfigError
from mforce.mforce_core.model.lapped import LappedPatches, border_filter
from mforce.mforce_core.model.tokens import patches_to_tokens, patchify, tokens_to_patches, unpatchify
from mforce.mforce_core.model.transformer import ModalityForcingTransformer
from mforce.mforce_core.weights.checkpoint import save_model
from mforce.mforce_core.weights.header import read_header
from mforce.scenes import render, sample_layouts

from .test_transformer import TINY as CUT

LAPPED = replace(CUT, depth_lapped=True)
GRID = (3, 5)


def tokens(maps: torch.Tensor, side: int) -> torch.Tensor:
    return patches_to_tokens(patchify(maps, side))


def maps(of: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    return unpatchify(tokens_to_patches(of, grid))


@pytest.mark.parametrize("side", [2, 4, 16])
def test_sums_of_mirrored_pixels_pass_the_filter(side: int) -> None:
    """And differences keep their energy: what makes it the pre-filter of a lapped orthogonal transform."""
    half, pixels = side // 2, np.random.default_rng(0).normal(size=side)
    filtered = border_filter(side) @ pixels
    for sign in (1, -1):
        before = pixels[:half][::-1] + sign * pixels[half:]
        after = filtered[:half][::-1] + sign * filtered[half:]
        if sign == 1:
            np.testing.assert_allclose(after, before, atol=1e-12)
        else:
            assert np.square(after).sum() == pytest.approx(np.square(before).sum(), rel=1e-12)


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


def test_tokens_that_are_off_leave_even_steps() -> None:
    """What this is for. The tokens of rendered maps, dealt out anew, are errors as networks make them: each of a
    likely shape, independent of its neighbors'. Of 16 columns of pixels none then stands out."""
    _, depth = render(sample_layouts(64, seed=0), 128)
    given, grid = encode_depth(depth).flatten(1, 2), (8, 8)
    unevenness = {}
    for name, patches in (("cut", None), ("lapped", LappedPatches(16))):
        own = given if patches is None else patches.lap(given, grid)
        own = (own - own.mean((0, 1))).flatten(0, 1)
        wrong = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(0))].reshape(given.shape)
        wrong = wrong if patches is None else patches.unlap(wrong, grid)
        steps = maps(wrong, grid)[..., 16:113].diff(dim=-1).square().mean((0, 1)).reshape(-1, 16).mean(0).sqrt()
        unevenness[name] = (steps.max() / steps.mean()).item()
    assert unevenness["cut"] > 5
    assert unevenness["lapped"] < 1.5


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


def test_compiled_steps_copy_nothing_from_the_host() -> None:
    """Their matrix is a constant on the device. CUDA graphs, for one, cannot record a copy from the host."""
    torch._dynamo.reset()
    model, graphs = ModalityForcingTransformer(LAPPED), []

    def keep(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable:
        graphs.append(graph)
        return graph.forward

    inputs = torch.randn(2, 15, 8), torch.randn(2, 15, 16), torch.randn(2, 7, 12), torch.ones(2), torch.ones(2), GRID
    compiled = torch.compile(model, backend=keep, fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(*inputs), model(*inputs))
        compiled(*inputs)
    (graph,) = graphs
    assert torch.tensor not in {node.target for node in graph.graph.nodes}


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
