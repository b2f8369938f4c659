"""Benchmarks on disk, in MoGe's and Marigold's layouts: what is read equals what their own loaders read."""

import json
import pickle
import shutil
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import marigold_files
from mforce.evaluation.depth import marigold_layout, moge_layout
from mforce.evaluation.depth.marigold_layout import MarigoldDataSet
from mforce.evaluation.depth.moge_layout import MogeDataSet, MogeSize
from mforce.evaluation.depth.rendered import RenderedScenes
from mforce.evaluation.depth.sources import Source

DATA = Path(__file__).parent / "data" / "depth_harnesses"
MARIGOLD = json.loads((DATA / "marigold_loaders.json").read_text(encoding="utf-8"))
SETS = [name for name in MARIGOLD if " " not in name]


@pytest.fixture(autouse=True)
def small_eth3d(monkeypatch: pytest.MonkeyPatch) -> None:
    """ETH3D's maps have 24 million numbers; here they are small."""
    monkeypatch.setattr(marigold_layout, "ETH3D_SIZE", marigold_files.SIZES["eth3d"])


def tarred(folder: Path) -> Path:
    path = folder.parent / f"{folder.name}.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(folder, arcname=".")
    return path


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "tar"])
@pytest.mark.parametrize("name", MARIGOLD)
def test_marigold(name: str, packed: bool, tmp_path: Path) -> None:
    key, _, region = name.partition(" ")
    lines = marigold_files.write(tmp_path / "data", key)
    source = Source(tarred(tmp_path / "data") if packed else tmp_path / "data")
    data = MarigoldDataSet(key, source, "\n".join(lines), region or "eigen")
    data = pickle.loads(pickle.dumps(data))  # as it goes to other processes
    example = data.read(0)
    assert {
        "shape": list(example.depth.shape),
        "valid": int(example.mask.sum()),
        "sum_of_indices": int(np.flatnonzero(example.mask).sum()),
        "sum_of_depth": pytest.approx(float(example.depth[example.mask].astype(np.float64).sum()), rel=1e-12),
        "sum_of_image": int(example.image.astype(np.int64).sum()),
        "low": data.limits.low,
        "high": data.limits.high,
    } == MARIGOLD[name]


def test_pictures_without_a_measurement_are_left_out_of_kittis_list(tmp_path: Path) -> None:
    lines = marigold_files.write(tmp_path, "kitti", 1)
    data = MarigoldDataSet("kitti", Source(tmp_path), "\n".join(["a.png None 721.5", *lines]))
    assert data.names == ["scene/kitti_0"]


@pytest.mark.parametrize("size", ["64x48", "80x40"])
def test_moge(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    width, height = map(int, size.split("x"))
    monkeypatch.setitem(moge_layout.MOGE_SETS, "nyuv2", MogeSize("small", width, height))
    data = MogeDataSet("nyuv2", Source(DATA / "moge"))
    assert data.names == ["centered", "off_center", "sparse"]
    with np.load(DATA / "moge_loader.npz") as recorded:
        for index, name in enumerate(data.names):
            example = data.read(index)
            depth, mask, intrinsics, image = (
                recorded[f"{name}/{size}/{part}"] for part in ("depth", "mask", "intrinsics", "image")
            )
            np.testing.assert_array_equal(example.mask, mask)
            np.testing.assert_allclose(example.depth[mask], depth[mask], rtol=1e-6)
            np.testing.assert_allclose(example.intrinsics, intrinsics, rtol=1e-6)
            assert np.abs(example.image.astype(int) - image).max() <= 1
    assert example.mask.mean() < 0.5  # the sparse one


def test_names_in_moges_index_may_have_spaces(tmp_path: Path) -> None:
    shutil.copytree(DATA / "moge" / "centered", tmp_path / "living room" / "1")
    (tmp_path / ".index.txt").write_text("living room/1\r\n\n")
    data = MogeDataSet("nyuv2", Source(tmp_path))
    assert data.names == ["living room/1"]
    assert data.read(0).mask.any()


def test_infinite_and_unknown_depth_does_not_count() -> None:
    depth = moge_layout.decode_log_png((DATA / "moge" / "sparse" / "depth.png").read_bytes(), "depth.png")
    assert np.isposinf(depth).any()
    assert np.isnan(depth).any()
    assert np.nanmin(depth) > 0


def _broken(case: str, folder: Path, lines: list[str]) -> None:
    picture, depth = (folder / path for path in lines[0].split()[:2])
    if case == "missing":
        depth.unlink()
    elif case == "cut short":
        depth.write_bytes(depth.read_bytes()[: depth.stat().st_size // 2])
    elif case == "not an image":
        depth.write_bytes(b"<html>404</html>")
    elif case == "another size":
        Image.new("RGB", (8, 8)).save(picture)
    elif case == "all black":
        with Image.open(depth) as image:
            blank = Image.fromarray(np.zeros((image.height, image.width), np.uint16))
        blank.save(depth)
    else:
        lines[0] = lines[0].split()[0]


@pytest.mark.parametrize("case", ["missing", "cut short", "not an image", "another size", "all black", "short line"])
def test_broken_files_are_named(case: str, tmp_path: Path) -> None:
    lines = marigold_files.write(tmp_path, "scannet")
    _broken(case, tmp_path, lines)
    data = MarigoldDataSet("scannet", Source(tmp_path), "\n".join(lines))
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        data.read(0)
    data.read(1)


@pytest.mark.parametrize("part", ["image.jpg", "depth.png", "meta.json"])
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n garbage", b"{}"])
def test_broken_files_of_moge_are_named(part: str, content: bytes, tmp_path: Path) -> None:
    shutil.copytree(DATA / "moge", tmp_path / "moge")
    (tmp_path / "moge" / "centered" / part).write_bytes(content)
    data = MogeDataSet("nyuv2", Source(tmp_path / "moge"))
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        data.read(0)


def test_arrays_that_would_run_code_are_refused(tmp_path: Path) -> None:
    lines = marigold_files.write(tmp_path, "diode", 1)
    content = BytesIO()
    np.save(content, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / lines[0].split()[1]).write_bytes(content.getvalue())
    with pytest.raises(ValueError, match="no plain"):
        MarigoldDataSet("diode", Source(tmp_path), lines[0]).read(0)


def test_a_tar_that_ends_too_early_keeps_what_is_whole(tmp_path: Path) -> None:
    lines = marigold_files.write(tmp_path / "data", "scannet", 3)
    path = tarred(tmp_path / "data")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    data = MarigoldDataSet("scannet", Source(path), "\n".join(lines))
    found = 0
    for index in range(3):
        try:
            data.read(index)
            found += 1
        except ValueError:
            pass
    assert 0 < found < 3


def test_rendered_scenes_are_those_of_the_sequence() -> None:
    few, more = RenderedScenes(2), RenderedScenes(3)
    np.testing.assert_array_equal(few.read(1).depth, more.read(1).depth)
    assert (few.read(0).depth != few.read(1).depth).any()


def test_unknown_sets_are_named() -> None:
    with pytest.raises(ValueError, match="nyuv2"):
        MogeDataSet("scannet", Source(DATA / "moge"))
    with pytest.raises(ValueError, match="scannet"):
        MarigoldDataSet("ibims1", Source(DATA), "a b")
    with pytest.raises(ValueError, match="does not exist"):
        Source(DATA / "nothing")
