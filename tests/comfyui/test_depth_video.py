"""MF Video to Depth Video in a real ComfyUI: like MF Video Depth, with sound, in flat memory, interrupted, refused."""

import json
from pathlib import Path

import pytest

from .host import PACK, find_installation

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("depth_video")
    return json.loads(find_installation().run(HERE / "depth_video_runs.py", PACK, folder))


def test_depth_is_that_of_the_node_that_keeps_all_frames(results):
    known, difference = results["numbers"]
    assert known > 0.9
    assert difference < 1e-3
    assert results["looks like the preview"] > 0.99


def test_a_video_comes_out_with_the_rate_and_the_sound_of_the_one_that_went_in(results):
    kind, temporary, container = results["kind"]
    assert (kind, temporary) == ("VideoFromFile", True)
    assert "mp4" in container.split(",")
    assert results["shape"] == [[12, 64, 64, 3], 12]
    quiet, loud = results["sound"]
    assert quiet < 0.02
    assert loud > 0.5
    assert results["silent"]


def test_depth_files_are_in_a_folder_of_their_own(results):
    names = [f"depth/walk_00001/depth.{number:06d}.exr" for number in range(1, 13)]
    assert results["output"] == ["depth", "depth/walk_00001", *names]
    assert results["temp"] == 1  # the video


def test_layouts_and_colors(results):
    shape, difference = results["beside"]
    assert shape == [12, 82, 290, 3]
    assert difference < 0.03
    shape, difference = results["beside, small"]
    assert shape == [12, 64, 128, 3]
    assert difference < 0.03
    assert results["colored"] > 0.2


def test_pictures_with_sound_make_a_video_too(results):
    shape, rate, quiet, loud = results["of pictures"]
    assert (shape, rate) == ([12, 82, 146, 3], 12)
    assert quiet < 0.02
    assert loud > 0.5


def test_a_file_that_breaks_off_is_noticed_once(results):
    frames, notices = results["broken"]
    assert 2 <= frames < 48
    assert notices == [f"broken.mkv breaks off: its pictures end after {frames / 12:.1f} of 4.0 s."]


def test_a_clip_is_read_as_a_player_shows_it_and_what_is_changed_is_said(results):
    video, image, notices = results["as shown"]
    assert video == [12, 64, 128, 3]
    assert image == [12, 64, 128, 3]
    square = "wide.mov has pixels that are not square: its pictures of 64x64 are read as 128x64, as players show them."
    silent = "wide.mov has sound of a kind that PyAV does not read: it is left out."
    assert notices == [square, silent, square]


def test_a_part_has_its_own_sound(results):
    frames, loud = results["trimmed"]
    assert frames == 3
    assert loud > 0.5


def test_pictures_of_a_video_without_a_rate_keep_their_times(results):
    found, wanted = results["unsteady"]
    assert found == wanted


def test_few_frames_are_in_memory_at_once(results):
    frames, most = results["alive"]
    assert frames == 2 * 48  # depth is made, then shown
    assert most <= 6


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("no pictures", "sound.wav has no video stream"),
        ("one frame", "a clip needs two frames or more"),
        ("no frame", "the clip has no frame"),
        ("mixed", "mixed.mjpeg changes its size from 64x48 to 32x32"),
        ("two sizes", "width 100 is not a multiple of 16"),
        ("outside", "leads out of the output folder"),
        ("long name", "cannot be used: file name too long"),
        ("no video", "video is no VIDEO"),
    ],
)
def test_problems_are_said(results, case, sentence):
    assert results[case].startswith("MF Video to Depth Video: ")
    assert sentence in results[case]


def test_a_run_that_fails_leaves_nothing(results):
    assert results["nothing is left"]


def test_the_bar_counts_frames_and_sends_no_picture_which_would_stay_in_place_of_the_video(results):
    assert results["bar"] == [[number, False] for number in (4, 8, 12, *range(1, 13))]


def test_a_run_can_be_interrupted_at_any_time_and_the_next_one_works(results):
    (first, nothing_left), (second, nothing_left_either) = results["interrupted"]
    assert (len(first), len(second)) == (2, 5)
    assert nothing_left
    assert nothing_left_either
    assert results["after it"] == [12, 13]
