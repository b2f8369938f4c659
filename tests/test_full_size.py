"""Depth at the size of the picture: tiles, what they keep, how they meet, and the memory they take."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mforce import Pipeline
from mforce.evaluation.metrics import abs_rel, align_median, edge_band
from mforce.mforce_core.depth.resampling import enlarge_depth, resample_depth
from mforce.mforce_core.full_size.enlarged import EnlargedDepth
from mforce.mforce_core.full_size.low_band import hold_low_band
from mforce.mforce_core.full_size.refine import Tiling, count_tiles, ladder, refine_depth, shrink
from mforce.mforce_core.full_size.refine_both import refine_both
from mforce.mforce_core.full_size.snapping import snap_edges, snap_rows
from mforce.mforce_core.full_size.tile_model import TileModel, tile_path, tile_steps
from mforce.mforce_core.full_size.tiles import Blend, plan_tiles
from mforce.mforce_core.networks import Networks
from mforce.mforce_core.release import MIN_DEPTH_TIME
from mforce.scenes import render, sample_layouts
from tiny_model import TINY, random_model

SIDE = st.integers(1, 90)


@pytest.fixture(scope="module")
def scene():
    """A picture (H, W, 3) uint8 of 160 pixels, its exact depth, and the depth of every fourth pixel."""
    image, depth = render(sample_layouts(1, 77), 160)
    pixels = (image[0].movedim(0, -1) * 255).round().byte().numpy()
    return pixels, depth[0], resample_depth(depth, (40, 40))[0]


@settings(max_examples=60, deadline=None)
@given(SIDE, SIDE, st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_tiles_cover_every_pixel_and_overlap_as_asked(height, width, tall, wide, overlap):
    tiles = plan_tiles((height, width), (tall, wide), overlap)
    covered = np.zeros((height, width), int)
    for tile in tiles:
        covered[tile.place] += 1
        assert (tile.height, tile.width) == (min(tall, height), min(wide, width))
    assert covered.min() >= 1
    tops = sorted({tile.top for tile in tiles})
    assert all(after - before <= max(1, tall * (1 - overlap)) + 9 for before, after in pairwise(tops))
    assert tiles == sorted(tiles, key=lambda tile: (tile.top, tile.left))


def test_tokens_of_overlapping_tiles_end_on_lines_of_their_own():
    lefts = sorted({tile.left for tile in plan_tiles((128, 512), (128, 128), 0.5)})
    assert [left % 16 for left in lefts] == [0, 8, 0, 8, 0, 8, 0]


@settings(max_examples=20, deadline=None)
@given(SIDE, SIDE, st.integers(8, 40), st.sampled_from([0.0, 0.3, 0.5]))
def test_tiles_of_a_map_make_the_map_again(height, width, side, overlap):
    whole = torch.rand(height, width, generator=torch.Generator().manual_seed(height * 91 + width))
    whole[0, 0] = torch.nan
    blend = Blend(np.empty((height, width), np.float32))
    for tile in plan_tiles((height, width), (side, side), overlap):
        blend.add(tile, whole[tile.place])
    np.testing.assert_allclose(blend.finish(), whole.numpy(), rtol=1e-5)


def test_tiles_of_a_steep_map_fade_into_each_other_without_a_step():
    blend = Blend(np.empty((64, 96), np.float32))
    for number, tile in enumerate(plan_tiles((64, 96), (64, 64), 0.5)):
        blend.add(tile, torch.full((64, 64), float(number)))
    assert np.abs(np.diff(blend.finish(), axis=1)).max() < 0.06  # two tiles one apart, over 32 pixels


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 12), st.integers(3, 12), st.integers(0, 30), st.integers(0, 30), st.booleans())
def test_tiles_of_an_enlarged_map_are_those_of_enlarge_depth(rows, columns, taller, wider, holes):
    generator = torch.Generator().manual_seed(rows * 1000 + columns * 100 + taller)
    small = 2 + torch.rand(rows, columns, generator=generator).round() + 0.01 * torch.rand(rows, columns)
    if holes:
        small[1, 1] = torch.nan
    size = (rows + taller, columns + wider)
    whole, enlarged = enlarge_depth(small[None], size)[0], EnlargedDepth(small, size)
    for tile in plan_tiles(size, (7, 9), 0.3):
        torch.testing.assert_close(enlarged[tile], whole[tile.place], rtol=1e-5, atol=0, equal_nan=True)


def test_a_tile_keeps_its_details_and_takes_the_low_band_of_the_map_it_starts_from():
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    coarse = 2 + 0.01 * rows
    detail = 1 + 0.03 * ((rows // 2 + columns // 2) % 2)  # a pattern of 4 pixels
    bent = 7 * torch.exp(0.002 * (columns - 32))
    held = hold_low_band((coarse * detail * bent)[None], coarse[None], sigma=6.0)[0]
    inner = (slice(12, -12), slice(12, -12))
    ratio = (held / (coarse * detail))[inner]
    assert ratio.max() / ratio.min() < 1.01
    assert (bent[inner].max() / bent[inner].min()) > 1.07  # what was taken out


def test_an_edge_that_a_tile_moved_stays_where_the_tile_has_it():
    columns = torch.arange(64).expand(64, 64)
    coarse, fine = torch.where(columns < 30, 1.0, 2.0), torch.where(columns < 33, 3.0, 6.0)
    held = hold_low_band(fine[None], coarse[None], sigma=8.0)[0]
    torch.testing.assert_close(held, torch.where(columns < 33, 1.0, 2.0), rtol=0.02, atol=0)


def test_where_a_tile_has_no_depth_the_map_stands():
    coarse = torch.full((1, 32, 32), 2.0)
    fine = torch.full((1, 32, 32), 5.0)
    fine[0, :8] = torch.nan
    torch.testing.assert_close(hold_low_band(fine, coarse, sigma=4.0), coarse)


def test_edges_of_depth_go_to_the_edges_of_the_picture(scene):
    pixels, exact, coarse = scene
    colors = torch.from_numpy(pixels).movedim(-1, 0) / 255
    enlarged = enlarge_depth(coarse[None], (160, 160))
    snapped = snap_edges(enlarged[0], colors, 6)[None]
    assert _band_error(snapped, exact) < 0.6 * _band_error(enlarged, exact)
    assert torch.isin(snapped, enlarged).all()


def test_snapping_takes_the_weighted_median():
    generator = torch.Generator().manual_seed(4)
    depth = 1 + torch.rand(9, 9, generator=generator).round() + torch.rand(9, 9, generator=generator) / 9
    image = torch.rand(3, 9, 9, generator=generator)
    depth[2, 3] = torch.nan
    snapped = snap_edges(depth, image, 2)
    assert torch.isnan(snapped[2, 3])
    for row, column in ((0, 0), (4, 4), (3, 3), (8, 5)):
        pairs = []
        for y in range(max(0, row - 2), min(9, row + 3)):
            for x in range(max(0, column - 2), min(9, column + 3)):
                if not torch.isnan(depth[y, x]):
                    unlike = float((image[:, y, x] - image[:, row, column]).square().sum())
                    far = (y - row) ** 2 + (x - column) ** 2
                    pairs.append((float(depth[y, x]), np.exp(-unlike / 0.02 - far / 8)))
        pairs.sort()
        total = np.cumsum([weight for _, weight in pairs])
        assert float(snapped[row, column]) == pytest.approx(pairs[int(np.argmax(total >= total[-1] / 2))][0])


def test_snapping_by_rows_is_snapping_the_whole(scene, monkeypatch):
    pixels, _, coarse = scene
    monkeypatch.setattr("mforce.mforce_core.full_size.snapping._ROWS", 17)
    whole = snap_edges(enlarge_depth(coarse[None], (160, 160))[0], torch.from_numpy(pixels).movedim(-1, 0) / 255, 3)
    by_rows = enlarge_depth(coarse[None], (160, 160))[0].numpy()
    snap_rows(by_rows, pixels, 3)
    np.testing.assert_array_equal(by_rows, whole.numpy())


def test_a_picture_made_smaller_by_rows_is_that_of_pillow(monkeypatch):
    monkeypatch.setattr("mforce.mforce_core.full_size.refine._ROWS", 10)
    pixels = np.random.default_rng(0).integers(0, 256, (131, 77, 3), np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((40, 61), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(shrink(pixels, (61, 40)).astype(int) - expected).max() <= 1


def test_sizes_grow_by_two_at_most():
    assert ladder((128, 128), (512, 512)) == [(256, 256), (512, 512)]
    assert ladder((96, 128), (768, 1024)) == [(192, 256), (384, 512), (768, 1024)]
    assert ladder((128, 128), (128, 128)) == [(128, 128)]
    assert ladder((96, 128), (100, 140)) == [(100, 140)]


@pytest.mark.parametrize("strength", [0.05, 0.15, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 4, 50])
def test_tiles_take_no_step_that_leaves_noise_behind(strength, steps):
    levels = tile_path(strength).build(tile_steps(steps, strength)).depth
    assert levels[0] == pytest.approx(strength)
    assert levels[-2] > MIN_DEPTH_TIME - 1e-3  # the release divides by at least this


class Truth:
    """A model that sees every tile exactly, but each in a unit of its own and with its far side bent away."""

    def __init__(self, pixels, exact):
        self.pixels, self.exact, self.calls = torch.from_numpy(pixels).movedim(-1, 0) / 255, exact, 0

    def __call__(self, pictures, start):
        maps = []
        for picture in pictures:
            height, width = picture.shape[1:]
            windows = self.pixels.unfold(1, height, 1).unfold(2, width, 1)
            row, column = (windows == picture[:, None, None]).all(-1).all(-1).all(0).nonzero()[0].tolist()
            self.calls += 1
            bend = torch.exp(0.003 * torch.arange(width))
            maps.append((1 + self.calls % 5) * bend * self.exact[row : row + height, column : column + width])
        return torch.stack(maps)


def test_a_model_that_sees_tiles_exactly_gives_the_exact_map(scene):
    pixels, exact, _ = scene
    coarse = resample_depth(exact[None], (80, 80))[0]
    seen, finished = Truth(pixels, exact), []
    tiling = Tiling((64, 64), 0.5, together=2, snap=False)
    refined = refine_depth(pixels, coarse, seen, tiling, progress=lambda *step: finished.append(step))
    refined, enlarged = torch.from_numpy(refined)[None], enlarge_depth(coarse[None], (160, 160))
    assert _band_error(refined, exact) < 0.35 * _band_error(enlarged, exact)
    assert float(abs_rel(align_median(refined, exact[None]), exact[None])) < 0.01
    assert finished == [(number + 1, 16) for number in range(16)]
    assert seen.calls == count_tiles((80, 80), (160, 160), tiling) == 16


def test_missing_depth_stays_missing_and_is_not_asked_for(scene):
    pixels, exact, _ = scene
    coarse = resample_depth(exact[None], (80, 80))[0].clone()
    coarse[:40] = torch.nan

    def see(pictures, start):
        assert not start.isnan().flatten(1).all(1).any()
        return start.nan_to_num(1.0)

    refined = refine_depth(pixels, coarse, see, Tiling((40, 40), 0.0))
    assert np.isnan(refined[:78]).all()
    assert np.isfinite(refined[82:]).all()


def test_what_cannot_be_refined_is_refused_in_a_sentence(scene):
    pixels, _, coarse = scene
    with pytest.raises(ValueError, match="no valid pixel"):
        refine_depth(pixels, coarse * torch.nan, lambda *_: coarse, Tiling((16, 16)))
    with pytest.raises(ValueError, match="`overlap`"):
        Tiling((16, 16), 0.95)


def test_depth_that_is_larger_than_its_picture_is_made_smaller():
    refined = refine_depth(
        np.zeros((20, 30, 3), np.uint8), torch.full((64, 16), 3.0), lambda _, start: start, Tiling((16, 16))
    )
    np.testing.assert_allclose(refined, np.full((20, 30), 3.0), rtol=1e-5)


def test_progress_that_raises_ends_the_work(scene):
    pixels, exact, _ = scene
    seen = Truth(pixels, exact)

    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refine_depth(pixels, resample_depth(exact[None], (80, 80))[0], seen, Tiling((64, 64)), progress=stop)
    assert seen.calls == 3


_PEAK = """
import sys, numpy as np, torch
from mforce.mforce_core.full_size.refine import Tiling, refine_depth
height, folder = int(sys.argv[1]), sys.argv[2]
picture = np.memmap(folder + "/picture", np.uint8, "w+", shape=(height, 512, 3))
out = np.memmap(folder + "/out", np.float32, "w+", shape=(height, 512))
def anonymous(*_):
    with open("/proc/self/status") as file:
        held.append(next(int(line.split()[1]) for line in file if line.startswith("RssAnon")))
held = []
coarse = torch.linspace(1, 2, height // 4 * 128).view(height // 4, 128)
refine_depth(picture[:512], coarse[:128], lambda _, start: start, Tiling((128, 128), 0.25))  # what is loaded once
anonymous()
refine_depth(picture, coarse, lambda _, start: start, Tiling((128, 128), 0.25), out=out, progress=anonymous)
assert np.isfinite(out[-1]).all()
print(1024 * (max(held) - held[0]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_beside_picture_and_result_does_not_grow_with_them(tmp_path):
    low, high = 1024, 4096
    held = [
        int(
            subprocess.run(
                [sys.executable, "-c", _PEAK, str(height), str(tmp_path)], capture_output=True, check=True
            ).stdout
        )
        for height in (low, high)
    ]
    # What grows is a map and a picture of half the size. The picture itself has 3 bytes a pixel, its depth 4 more.
    assert held[1] - held[0] < 3 * 512 * (high - low)


@pytest.fixture(scope="module")
def nano():
    return Pipeline.load("nano", device="cpu")


def test_image_to_depth_at_full_size(nano, scene):
    pixels, _, _ = scene
    steps = []
    first = nano.i2d(pixels, steps=2, full_size=True, overlap=0.25, progress=lambda *step: steps.append(step))
    plain = nano.i2d(pixels, steps=2)
    again = nano.i2d(pixels, steps=2, full_size=True, overlap=0.25)
    assert first.depth.shape == plain.depth.shape == (160, 160)
    assert steps == [(1, 2), (2, 2), (1, 4), (2, 4), (3, 4), (4, 4)]
    np.testing.assert_array_equal(first.depth, again.depth)
    ratio = first.depth / plain.depth
    assert 0.9 < np.nanmedian(ratio) < 1.1
    assert np.nanmean(np.abs(ratio - 1)) > 1e-3


def test_tiles_take_the_guidance_that_a_model_embeds():
    sizes = replace(TINY, depth_channels=256, use_guidance_embed=True)
    model, text = random_model(sizes, std=0.2), torch.randn(1, 3, sizes.context_in_dim)

    class Autoencoder:
        def encode(self, image):
            return torch.ones(len(image), sizes.in_channels, image.shape[2] // 16, image.shape[3] // 16)

    def made(guidance):
        networks = Networks(model, Autoencoder(), text, text, guidance)
        tiles = TileModel(networks, strength=1.0, steps=1, solver="euler", seed=0)
        return tiles(torch.rand(1, 3, 32, 32), torch.ones(1, 32, 32)).nan_to_num()

    assert not torch.equal(made(1.0), made(4.0))


def test_a_cropped_and_a_small_picture_at_full_size(nano, scene):
    pixels, _, _ = scene
    cropped = nano.i2d(pixels[:, :40], steps=1, full_size=True, fit="crop", size=(48, 48), tile=32)
    assert cropped.depth.shape == (160, 40)
    assert np.isnan(cropped.depth[:50]).all()
    assert np.isfinite(cropped.depth[70:90]).all()
    assert nano.i2d(pixels[:50, :30], steps=1, full_size=True).depth.shape == (50, 30)


def test_a_picture_and_its_depth_made_larger(nano):
    prompt, steps = "a red sphere on a wooden floor", []
    options = {"steps": 2, "seed": 3, "size": (64, 48)}
    small = nano.joint(prompt, **options)
    pair = nano.joint(prompt, **options, enlarge=2.0, tile_strength=0.5, progress=lambda *step: steps.append(step))
    assert pair.image.shape == (96, 128, 3)
    assert pair.depth.shape == (96, 128)
    assert steps[-1] == (9, 9)
    enlarged = np.asarray(Image.fromarray(small.image).resize((128, 96), Image.Resampling.BICUBIC)).astype(float)
    # The same picture, with details of its own.
    assert 1 < np.abs(pair.image - enlarged).mean() < 30
    coarse = [
        np.asarray(Image.fromarray(pixels).resize((4, 3), Image.Resampling.BOX)) for pixels in (pair.image, small.image)
    ]
    assert np.abs(coarse[0].astype(float) - coarse[1]).mean() < 6
    ratio = pair.depth / enlarge_depth(torch.from_numpy(small.depth)[None], (96, 128))[0].numpy()
    assert 0.9 < np.nanmedian(ratio) < 1.1


def test_a_pair_keeps_its_colors_and_its_depth_from_tile_to_tile():
    picture = np.random.default_rng(0).integers(90, 160, (32, 32, 3), np.uint8)
    depth = torch.full((32, 32), 2.0)
    numbers = iter(range(99))

    def make(colors, start):
        number = next(numbers)  # every tile in another light and another unit
        return (colors + 0.05 * (number % 3)).clamp(0, 1), start * (1 + number)

    larger, far = refine_both(picture, depth, (64, 64), make, Tiling((32, 32), 0.5))
    expected = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BICUBIC))
    assert np.abs(larger.astype(float) - expected).max() <= 2
    np.testing.assert_allclose(far, np.full((64, 64), 2.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"original_size": False}, "`original_size`"),
        ({"tile": 100}, "`tile` must be a multiple of 16"),
        ({"overlap": 1.0}, "`overlap` must lie"),
        ({"tile_strength": 0.0}, "`tile_strength` must be above 0"),
        ({"enlarge": 2.0}, "`enlarge` is for mode joint, got i2d"),
        ({"enlarge": 0.5}, "`enlarge` must be from 1 to 64 times, got 0.5"),
    ],
)
def test_impossible_settings_are_named(nano, scene, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        nano.i2d(scene[0], full_size=True, **wrong)


def _band_error(maps: torch.Tensor, exact: torch.Tensor) -> float:
    band = exact.where(edge_band(exact[None])[0], torch.nan)[None]
    return float(abs_rel(align_median(maps, exact[None]), band))
