"""Numbered depth files: what is found, which frames are read, what is said about those that are not there."""

import json

import numpy as np
import pytest
import tifffile

from mforce.mforce_core.depth.encoding import KEY, Encoding
from mforce.mforce_core.depth.files import read_depth, write_float_tiff
from mforce.mforce_core.depth.sequences import choose_frames, depth_file_names, find_patterns, frame_numbers


@pytest.fixture
def shot(tmp_path):
    """Frames 8, 9, 11 and 10000 of one clip, and files that are none of its."""
    names = [
        "z.0008.exr",
        "z.0009.exr",
        "z.0011.exr",
        "z.10000.exr",
        "z.00012.png",
        "other.0010.exr",
        "z.exr",
        "z.12.exr",
    ]
    for name in names:
        (tmp_path / name).touch()
    return tmp_path


def numbers(frames):
    return [int(path.name.split(".")[1]) for path in frames.paths]


def test_a_folder_and_its_folders_are_listed_with_sequences_first(tmp_path):
    for name in ("a.exr", "notes.txt", "renders/z.0001.exr", "renders/z.0002.exr", "renders/deep/one_1.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "renders" / "loop").symlink_to(tmp_path)
    elsewhere = tmp_path.parent / f"{tmp_path.name}_linked"
    elsewhere.mkdir()
    (elsewhere / "b.npy").touch()
    (tmp_path / "linked").symlink_to(elsewhere)
    assert depth_file_names(tmp_path) == [
        "renders/z.####.exr", "a.exr", "linked/b.npy", "renders/deep/one_1.png", "renders/z.0001.exr",
        "renders/z.0002.exr",
    ]  # fmt: skip


def test_a_sequence_is_two_or_more_files_that_differ_in_their_last_number():
    assert find_patterns(["v1_s2.001.exr", "v1_s2.002.exr", "v2_s2.001.exr", "v1_s2.001.png"]) == ["v1_s2.###.exr"]


def test_the_frames_of_a_pattern(shot):
    found = frame_numbers(shot / "z.####.exr")
    assert list(found) == [8, 9, 11, 10000]
    assert found[11] == shot / "z.0011.exr"
    assert frame_numbers(shot / "gone" / "z.####.exr") == {}


def test_frames_that_are_missing_are_said_and_stand_in_only_when_asked(shot):
    pattern = shot / "z.####.exr"
    assert numbers(choose_frames(pattern, 8, 9)) == [8, 9]
    assert choose_frames(pattern, 8, 9).notes == ()
    with pytest.raises(ValueError, match=r"lacks 3 of the frames 7 to 12: 7, 10, 12; render"):
        choose_frames(pattern, 7, 12)
    with pytest.raises(ValueError, match=r"lacks 9989 of the frames 8 to 10000: 10, 12-9999"):
        choose_frames(pattern)
    held = choose_frames(pattern, 7, 12, "hold")
    assert numbers(held) == [8, 8, 9, 9, 11, 11]
    assert "7, 10, 12" in held.notes[0]
    skipped = choose_frames(pattern, 7, 12, "skip")
    assert numbers(skipped) == [8, 9, 11]
    assert "left out" in skipped.notes[0]
    with pytest.raises(ValueError, match="none between 20 and 30"):
        choose_frames(pattern, 20, 30, "hold")
    with pytest.raises(ValueError, match="comes before the first"):
        choose_frames(pattern, 5, 4)
    with pytest.raises(ValueError, match="has no frames"):
        choose_frames(shot / "y.####.exr")


@pytest.mark.parametrize("encoding", [Encoding(), Encoding(disparity=True, scale=0.5)])
def test_a_float_tiff_says_what_its_numbers_are_and_another_library_reads_them(tmp_path, encoding):
    values = np.random.default_rng(0).uniform(0.5, 9.0, (5, 7)).astype(np.float32)
    values[1, 2] = np.nan
    write_float_tiff(tmp_path / "a.tiff", values, encoding)
    with tifffile.TiffFile(tmp_path / "a.tiff") as file:
        np.testing.assert_array_equal(file.pages[0].asarray(), np.nan_to_num(values))
        assert json.loads(file.pages[0].description) == {KEY: encoding.to_text()}
    np.testing.assert_array_equal(read_depth(tmp_path / "a.tiff").depth, encoding.depth(values))


def test_the_description_of_a_foreign_tiff_is_no_matter(tmp_path):
    values = np.linspace(1, 2, 12, dtype=np.float32).reshape(3, 4)
    for index, text in enumerate(["scanner 5", '["list"]', "{"]):
        tifffile.imwrite(tmp_path / f"{index}.tif", values, description=text)
        np.testing.assert_array_equal(read_depth(tmp_path / f"{index}.tif").depth, values)
