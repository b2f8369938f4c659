"""Own folders as data sets of `mforce eval depth`, and the middle of pictures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import marigold_files

pytest.importorskip("typer")

from command_line import run_unwrapped as run
from mforce.evaluation.depth.alignment import Limits
from mforce.evaluation.depth.center_crop import CenterCropped
from mforce.evaluation.depth.datasets import DataSpec, open_data
from mforce.evaluation.depth.example import Example
from mforce.evaluation.table import Table


def test_the_middle_of_pictures_can_be_scored(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n".join(marigold_files.write(tmp_path / "data", "scannet", 1)))
    scannet = DataSpec("scannet", tmp_path / "data", "auto", tmp_path / "list.txt")
    whole, _ = open_data(scannet)
    middle, _ = open_data(replace(scannet, crop=32))
    before, after = whole.read(0), middle.read(0)
    rows, columns = before.depth.shape
    side = min(rows, columns)
    part = (slice((rows - side) // 2, (rows + side) // 2), slice((columns - side) // 2, (columns + side) // 2))
    assert after.depth.shape == after.image.shape[:2] == (32, 32)
    assert "32x32" in middle.preparation
    assert set(after.depth[after.mask]) <= set(before.depth[part][before.mask[part]])
    expected = before.image[part].mean((0, 1))
    np.testing.assert_allclose(after.image.mean((0, 1)), expected, atol=3)


def test_a_camera_of_the_middle_sees_what_the_whole_saw() -> None:
    """A point keeps its direction: its pixel in the middle is its pixel in the whole, moved and scaled."""
    camera = np.array([[0.8, 0, 0.5], [0, 1.2, 0.4], [0, 0, 1]], np.float32)

    class Whole:
        title, names, limits, sharp, preparation = "x", ["x"], Limits(), False, "x"

        def read(self, index: int) -> Example:
            depth = np.ones((40, 60), np.float32)
            return Example("x", np.zeros((40, 60, 3), np.uint8), depth, depth > 0, camera)

    middle = CenterCropped(Whole(), 20).read(0)
    point = np.array([0.1, 0.2, 1.0])
    whole = (camera @ point)[:2] * (60, 40)
    assert (middle.intrinsics @ point)[:2] * 20 == pytest.approx((whole - (10, 0)) / 2, abs=1e-4)


def test_a_folder_of_own_files_is_scored_as_the_training_data_are_read(tmp_path: Path) -> None:
    random, folder = np.random.default_rng(0), tmp_path / "mine"
    folder.mkdir()
    depth = random.uniform(1, 9, (3, 20, 30)).astype(np.float32)
    depth[:, :4] = 0
    for number, values in enumerate(depth):
        Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / f"{number}.jpg")
        np.save(folder / f"{number}.depth.npy", values)
        (tmp_path / "maps").mkdir(exist_ok=True)
        np.save(tmp_path / "maps" / f"{number}.npy", np.where(values > 5, 1.1, 0.9) * values + (values == 0))
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "alone.jpg")
    (folder / "alone.txt").write_text("a caption, and no depth")
    np.save(folder / "2.depth.npy", np.zeros((20, 30), np.float32))
    options = ("--data", folder, "--predictions", tmp_path / "maps", "--align", "none", "-o", tmp_path / "out")
    run("eval", "depth", "files", *options, code=1)
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (found["pictures"], list(found["failed"])) == (2, ["2"])
    assert found["none.absrel"] == pytest.approx(0.1, rel=1e-5)
    rows = Table(tmp_path / "out", json.loads((tmp_path / "out" / "settings.json").read_text())).rows
    assert {row.measures["pixels"] for row in rows.values()} == {16 * 30}
    assert "neither a folder" in " ".join(
        run("eval", "depth", "files", "--data", tmp_path / "maps" / "0.npy", code=2).split()
    )
