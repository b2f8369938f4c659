"""Layouts of a picture's content, held against indexing written out."""

import torch

from mforce.mforce_core.model import tokens as layouts

GRID = (2, 3)


def test_tokens_run_row_by_row_over_the_grid() -> None:
    latents = torch.randn(2, 5, *GRID)
    patches = layouts.latents_to_patches(latents)
    tokens = layouts.latents_to_tokens(latents)
    assert tokens.shape == (2, 6, 5)
    assert torch.equal(layouts.patches_to_tokens(patches), tokens)
    for row in range(2):
        for column in range(3):
            assert torch.equal(tokens[:, 3 * row + column], latents[:, :, row, column])
            assert torch.equal(patches[:, row, column], latents[:, :, row, column])


def test_a_patch_is_row_major() -> None:
    maps = torch.arange(2 * 8 * 12).reshape(2, 8, 12)
    patches = layouts.patchify(maps, 4)
    assert patches.shape == (2, *GRID, 16)
    assert torch.equal(patches[1, 1, 2].reshape(4, 4), maps[1, 4:8, 8:12])


def test_every_way_has_its_way_back() -> None:
    maps, latents = torch.randn(2, 8, 12), torch.randn(2, 5, *GRID)
    patches = layouts.latents_to_patches(latents)
    assert torch.equal(layouts.unpatchify(layouts.patchify(maps, 4)), maps)
    assert torch.equal(layouts.patches_to_latents(patches), latents)
    assert torch.equal(layouts.tokens_to_patches(layouts.patches_to_tokens(patches), GRID), patches)
    assert torch.equal(layouts.tokens_to_latents(layouts.latents_to_tokens(latents), GRID), latents)
