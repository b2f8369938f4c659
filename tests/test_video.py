"""Steady depth of clips: still clips, cuts, scale, chains that start from each other, resuming, memory, flow."""

import gc
from itertools import pairwise

import numpy as np
import pytest
import torch

from mforce.evaluation.clips import render_clip
from mforce.mforce_core.model.config import Schedule
from mforce.mforce_core.sampling.path_spec import PathSpec
from mforce.mforce_core.video.changes import CUT, camera_rests, shot_distance, steadiness
from mforce.mforce_core.video.going_on import path_from
from mforce.mforce_core.video.scale import blend, scale_between
from mforce.mforce_core.video.steady import State, Steadier, Steadiness, steady_depth
from mforce.scenes import sample_layouts

SIDE = 32


class Moody:
    """A model of a flat wall whose scale is another one in every call and every picture."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.starts = []

    def __call__(self, pictures, start=None, level=1.0):
        self.starts.append((len(pictures), None if start is None else start.clone(), level))
        shape = 1 + torch.linspace(0, 1, pictures.shape[3]).expand(len(pictures), *pictures.shape[2:])
        return shape * torch.from_numpy(self.random.uniform(0.5, 2, (len(pictures), 1, 1))).float()


def still(count, seed=0, noise=0.0):
    """Frames of a picture that does not change, but for noise in its last columns."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.rand(3, SIDE, SIDE, generator=generator)
    frames = picture.repeat(count, 1, 1, 1)
    frames[..., -4:] += noise * torch.rand(count, 3, SIDE, 4, generator=generator)
    return frames.clamp(0, 1)


def depths(frames, model, **how):
    return torch.stack([one.depth for one in steady_depth(frames, model, Steadiness(**how))])


@pytest.mark.parametrize("carry", [0.0, 0.5])
def test_a_clip_that_stands_still_has_one_depth_to_the_bit(carry):
    model = Moody()
    found = depths(still(40), model, carry=carry)
    assert (found == found[0]).all()
    assert sum(count for count, *_ in model.starts) == 1


@pytest.mark.parametrize("carry", [0.0, 0.5])
def test_frames_of_one_shot_have_one_scale_whatever_the_model_draws(carry):
    found = depths(still(60, noise=1.0), Moody(), carry=carry, anchor_every=10)
    assert found == pytest.approx(found[:1].expand_as(found), rel=1e-5)
    free = depths(still(60, noise=1.0), Moody(), carry=carry, anchor_every=10, one_scale=False)
    assert free[:, 0, 0].std() > 0.1


def test_a_cut_starts_a_shot_and_a_scale_of_its_own():
    shots = [still(5, noise=1.0) * 0.4, 0.6 + 0.4 * still(5, seed=1, noise=1.0)]
    frames = list(steady_depth(torch.cat(shots), Moody(), Steadiness(batch=3)))
    assert [one.starts_shot for one in frames] == [True, *[False] * 4, True, *[False] * 4]
    scales = torch.tensor([float(one.depth[0, 0]) for one in frames])
    assert scales[:5] == pytest.approx(scales[:1].expand(5), rel=1e-5)
    assert abs(scales[5] / scales[4] - 1) > 0.05
    drawn = torch.from_numpy(np.random.default_rng(0).uniform(0.5, 2, 10)).float()
    assert scales[[0, 5]].tolist() == pytest.approx(drawn[[0, 5]].tolist())
    assert not any(one.starts_shot for one in list(steady_depth(torch.cat(shots), Moody(), Steadiness(cut=1.5)))[1:])


def test_a_frame_without_depth_to_compare_keeps_the_scale_of_its_shot():
    drawn = iter([1.0, 2.0, 2.0])

    def model(pictures, start=None, level=1.0):
        maps = torch.stack([torch.full((SIDE, SIDE), next(drawn)) for _ in pictures])
        if model.calls == 2:
            maps[:, 1:] = torch.nan  # but for a row, too few pixels
            maps[:, 0, 6:] = torch.nan
        model.calls += 1
        return maps

    model.calls = 0
    found = depths(still(3, noise=1.0), model, batch=1)
    assert found[:, 0, 0].tolist() == [1.0] * 3


def test_bars_say_nothing_about_cuts_scale_and_change():
    content = (slice(20, 44), slice(0, 64))

    def barred(frames):
        whole = torch.zeros(len(frames), 3, 64, 64)
        whole[(..., *content)] = frames
        return whole

    rooms = [render_clip(sample_layouts(1, 7, number), 1, number, 64)[0][..., 20:44, :] for number in range(4)]
    found = Steadier(Moody(), Steadiness(cut=0.25))(barred(torch.cat(rooms)), content)
    assert [one.starts_shot for one in found] == [True] * 4

    generator = torch.Generator().manual_seed(0)
    model = Moody()
    Steadier(model, Steadiness(carry=0.5))(barred(torch.rand(3, 3, 24, 64, generator=generator)), content)
    assert [start for _, start, _ in model.starts] == [None] * 3

    def two_scales(pictures, start=None, level=1.0):  # a wall that keeps its depth, between bars that do not
        depth = torch.full((len(pictures), 64, 64), next(bars))
        depth[(..., *content)] = 2.0
        return depth

    bars, frames = iter([1.0, 5.0]), torch.rand(1, 3, 24, 64, generator=generator).repeat(2, 1, 1, 1)
    frames[1, ..., :4] = 0
    scaled = Steadier(two_scales, Steadiness(batch=1))
    first, second = (scaled(frame[None], content)[0] for frame in barred(frames))
    assert torch.equal(first.depth[content], second.depth[content])


def test_a_chain_goes_on_where_the_picture_stayed_and_starts_again_in_time():
    model = Moody()
    depths(still(20, noise=1.0), model, carry=0.5, anchor_every=8, overlap=3)
    fresh = [number for number, (_, start, _) in enumerate(model.starts) if start is None]
    assert fresh == [0, 9, 20]  # in frame 0, and beside the old chain in frames 8 and 16
    assert all(level == 0.5 for _, start, level in model.starts if start is not None)
    assert all(start.isfinite().all() for _, start, _ in model.starts if start is not None)
    assert len(model.starts) == 20 + 3 + 3  # in frames 8 to 10 and 16 to 18 there are two


class Lasting:
    """A model whose depth from noise has another scale every time, which what goes on from it keeps."""

    def __init__(self):
        self.scale = 1.0

    def __call__(self, pictures, start=None, level=1.0):
        if start is not None:
            return start
        self.scale *= 1.5
        return torch.full((len(pictures), *pictures.shape[2:]), self.scale)


def test_where_chains_meet_there_is_no_seam():
    found = depths(still(40, noise=1.0), Lasting(), carry=0.5, anchor_every=10, overlap=4, one_scale=False)
    levels = found[:, 0, 0].log() / np.log(1.5)
    assert levels[0] == pytest.approx(1)
    steps = levels.diff()
    assert steps.max() == pytest.approx(1 / 5, abs=1e-3)  # of the way from chain to chain, in four frames and the next
    assert steps.min() >= -1e-6
    assert levels[-1] > 3
    assert depths(still(40, noise=1.0), Lasting(), carry=0.5, anchor_every=10).log().std() < 1e-5  # in one scale


def test_a_chain_does_not_go_on_where_nearly_everything_changed():
    model = Moody()
    generator = torch.Generator().manual_seed(0)
    depths(torch.rand(4, 3, SIDE, SIDE, generator=generator), model, carry=0.5)
    assert [start for _, start, _ in model.starts] == [None] * 4


@pytest.mark.parametrize("how", [{}, {"carry": 0.5, "anchor_every": 6, "overlap": 2}])
def test_a_resumed_clip_goes_on_as_if_nothing_had_been(how):
    frames = still(24, noise=1.0).split(4)

    def run(steadier, batches):
        return [one.depth for batch in batches for one in steadier(batch)]

    whole = run(Steadier(Moody(), Steadiness(**how)), frames)
    model = Moody()
    first = Steadier(model, Steadiness(**how))
    before = run(first, frames[:3])
    saved = {name: one.clone() for name, one in first.state.tensors().items()}
    after = run(Steadier(model, Steadiness(**how), State.from_tensors(saved)), frames[3:])
    assert torch.equal(torch.stack(before + after), torch.stack(whole))


def test_memory_does_not_grow_with_the_length():
    def peak(count):
        def frames():
            for number in range(count):
                yield torch.full((3, SIDE, SIDE), number / count)

        most = 0
        for number, one in enumerate(steady_depth(frames(), flat, Steadiness(batch=4))):
            assert one.depth.shape == (SIDE, SIDE)
            if number % 16 == 15:
                most = max(most, held())
        return most

    def flat(pictures, start=None, level=1.0):
        return torch.ones(len(pictures), SIDE, SIDE)

    def held():
        """Bytes of pictures and maps of this clip's size."""
        live = [one for one in gc.get_objects() if type(one) is torch.Tensor and one.shape[-2:] == (SIDE, SIDE)]
        return sum({one.data_ptr(): one.untyped_storage().nbytes() for one in live}.values())

    assert 0 < peak(32) == peak(128)


def test_frames_of_another_size_are_refused():
    frames = [torch.zeros(3, SIDE, SIDE), torch.zeros(3, SIDE, 2 * SIDE)]
    steadier = Steadier(Moody())
    steadier(frames[0][None])
    with pytest.raises(ValueError, match="a frame is 64x32 and those before it 32x32"):
        steadier(frames[1][None])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"carry": 1.0}, "carry must be"),
        ({"overlap": 24}, "overlap must be"),
        ({"batch": 0}, "batch must be"),
        ({"cut": 0}, "cut must be"),
        ({"flow": True}, "flow goes with carry"),
    ],
)
def test_impossible_values_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        Steadiness(**how)


def test_the_scale_is_the_median_of_the_ratios_by_weight():
    generator = torch.Generator().manual_seed(1)
    one = torch.rand(40, 50, generator=generator) + 0.5
    moved = torch.rand(40, 50, generator=generator) < 0.4
    other = torch.where(moved, one * 9, one * 1.25)
    assert scale_between(one, other, torch.ones(40, 50)) == pytest.approx(1.25)
    assert scale_between(one, other, moved.float()) == pytest.approx(9)
    assert scale_between(one, other, torch.zeros(40, 50)) is None
    three = torch.tensor([1.0, 1, 2, 3, 3]).repeat_interleave(100).reshape(10, 50)
    assert scale_between(torch.ones(10, 50), three, torch.ones(10, 50)) == 2
    assert scale_between(torch.ones(10, 50), three, torch.where(three == 3, 1.0, 0.3)) == 3
    holes = one.where(~moved, torch.nan)
    assert scale_between(holes, other, torch.ones(40, 50)) == pytest.approx(1.25)
    assert blend(one, 4 * one, 0.5) == pytest.approx(2 * one)
    assert torch.equal(blend(holes, one, 0.3).isnan(), torch.zeros(40, 50, dtype=torch.bool))


def test_what_changes_has_no_weight():
    before, after = still(1)[0], still(1)[0]
    after[:, :8, :8] = 1 - after[:, :8, :8]
    weight = steadiness(before, after)
    assert (weight[10:, 10:] == 1).all()
    assert weight[1:7, 1:7].max() < 0.05
    assert camera_rests(after, weight)
    assert shot_distance(before, before) == 0
    assert shot_distance(torch.zeros(3, 64, 64), torch.ones(3, 64, 64)) == 1


def test_cuts_between_rendered_rooms_are_told_from_a_walk_through_them():
    clips = [render_clip(sample_layouts(1, 7, number), 4, number, 64)[0] for number in range(4)]
    walks = [shot_distance(*pair) for clip in clips for pair in pairwise(clip)]
    cuts = [shot_distance(one[-1], other[0]) for one, other in pairwise(clips)]
    assert max(walks) < CUT < min(cuts)


def test_a_walk_past_even_walls_is_no_camera_that_rests():
    walk = render_clip(sample_layouts(1, 7), 6, 0, 64)[0]
    for before, after in pairwise(walk):
        weight = steadiness(before, after)
        assert weight.mean() > 0.5
        assert not camera_rests(after, weight)
    free = [one.depth for one in steady_depth(walk, Moody(), Steadiness())]
    assert len({float(one[0, 0]) for one in free}) == 6  # each its own


def test_a_chain_starts_where_its_noise_says_in_as_many_steps_as_are_left():
    spec, steps = path_from(0.6, 4, Schedule())
    path = spec.build(steps)
    assert path.depth[0] == pytest.approx(0.6)
    assert path.steps == 2  # of the levels 0.9, 0.75, 0.5 and 0 two are below
    assert set(path.rgb) == {0.0}
    assert path_from(1.0, 4, Schedule()) == (PathSpec("i2d"), 4)


def test_a_chain_goes_on_along_the_flow():
    pytest.importorskip("cv2")
    generator = torch.Generator().manual_seed(0)
    wide = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 12, generator=generator), (96, 96), mode="bicubic")[0]
    frames = [wide.clamp(0, 1)[:, 16:80, shift : shift + 64] for shift in (8, 12)]
    model = Ramp()
    list(steady_depth(frames, model, Steadiness(carry=0.5, flow=True, cut=2)))
    list(steady_depth(frames, still := Ramp(), Steadiness(carry=0.5, cut=2)))
    assert not still.starts  # without flow, too much changed
    (start,) = model.starts
    assert (start[0, 8:-8, 8:-8] - model.depth[8:-8, 12:-4]).abs().median() <= 1


class Ramp:
    """Depth that grows to the right."""

    depth = 1 + torch.arange(64.0).expand(64, 64)

    def __init__(self):
        self.starts = []

    def __call__(self, pictures, start=None, level=1.0):
        self.starts += [] if start is None else [start]
        return self.depth.repeat(len(pictures), 1, 1)


def test_flow_follows_what_moves():
    pytest.importorskip("cv2")
    from mforce.mforce_core.video.flow import FlowWarp

    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 20, 20, generator=generator)
    wide = torch.nn.functional.interpolate(coarse, (160, 160), mode="bicubic", align_corners=False)[0].clamp(0, 1)
    before, after = wide[:, 20:148, 20:148], wide[:, 20:148, 25:153]
    depth = torch.arange(160.0).expand(160, 160)
    (found,) = FlowWarp()(before, after, depth[20:148, 20:148])
    error = (found - depth[20:148, 25:153]).abs()
    assert error.nanmedian() <= 1
    assert found[:, -3:].isnan().float().mean() > 0.5  # it came in from the right
    assert found[20:-20, 20:-20].isnan().float().mean() < 0.1
