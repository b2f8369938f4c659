"""MF Video Depth in a real ComfyUI: against MF Sampler, on frames and video files, interrupted, refused."""

import json
from pathlib import Path

import pytest

from .host import PACK, find_installation

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("video")
    return json.loads(find_installation().run(HERE / "video_runs.py", PACK, folder))


def test_frames_have_the_depth_that_the_sampler_gives_them_from_one_noise(results):
    assert results["known"] > 0.9
    assert results["same as the sampler"] <= 1e-3
    assert results["one at a time"] <= 1e-3


def test_what_comes_out_belongs_to_the_frames(results):
    assert results["shapes"] == [[6, 256, 4, 4], [6, 64, 64, 3], [6, 64, 64, 3], 24.0]
    assert results["range"] == [0, 1]


def test_a_clip_that_stands_still_has_one_depth_to_the_bit(results):
    assert results["still"]


def test_chains_stay_near_the_depth_from_noise(results):
    assert 0 < results["carried"] < 0.2


def test_holes_start_from_the_noise_of_the_run(results):
    assert results["holes"] == [True, True]


def test_videos_are_read_from_files_whole_or_in_part_and_from_pictures(results):
    difference, fps = results["video"]
    assert difference < 0.01  # colors of 8 bits
    assert fps == 12
    frames, difference = results["trimmed"]
    assert frames == 3
    assert difference <= 1 / 255
    assert results["of pictures"] == [True, 30]


def test_problems_are_said(results):
    assert "MF Video Depth: a clip needs two frames or more" in results["one frame"]
    assert "width 100 is not a multiple of 16" in results["two sizes"]
    assert "flow goes with carry" in results["flow"]


def test_a_run_can_be_interrupted_and_the_next_one_works(results):
    assert results["interrupted after"] == 3
    assert results["after it"] == 6
