"""Samples from tars and folders that other libraries wrote, and what is said of those that cannot be used."""

import io
import json
import sys
import tarfile

import fsspec
import numpy as np
import OpenEXR
import pytest
import webdataset
from PIL import Image

from mforce.scenes import write_dataset
from mforce.training.data.check import check
from mforce.training.data.folders import folder_key
from mforce.training.data.sample import Broken, decode_files
from mforce.training.data.shards import MissingShardError, find_shards

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)
DEPTH = RNG.uniform(0.5, 9, (12, 16)).astype(np.float32)


def png(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png", **options)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def sample(**files: bytes):
    return decode_files("k", {"png": png(PICTURE), **{name.replace("_", "."): data for name, data in files.items()}})


def facts(**values) -> bytes:
    return json.dumps(values).encode()


def samples_of(*locations) -> list:
    return [record for shard in find_shards([str(at) for at in locations]) for record in shard.records()]


class TestSample:
    def test_image_caption_and_depth_of_every_kind(self, tmp_path):
        millimeters = (DEPTH * 1000).astype(np.uint16)
        found = sample(depth_png=png(millimeters), json=facts(caption=" hi ", depth_kind="metric", depth_scale=0.001))
        assert np.array_equal(found.image, PICTURE)
        assert (found.caption, found.kind, found.sparse) == ("hi", "metric", False)
        np.testing.assert_allclose(found.depth, millimeters / 1000, rtol=1e-6)

        OpenEXR.File({"type": OpenEXR.scanlineimage}, {"Z": DEPTH}).write(str(tmp_path / "d.exr"))
        found = sample(depth_exr=(tmp_path / "d.exr").read_bytes(), txt=b"from the text file", json=facts(caption="no"))
        assert np.array_equal(found.depth, DEPTH)
        assert found.caption == "from the text file"

        found = sample(npy=npy(1 / DEPTH), json=facts(depth_kind="disparity", depth_scale=0.5))
        np.testing.assert_allclose(found.depth, DEPTH * 2, rtol=1e-6)

    def test_a_mask_takes_pixels_out(self):
        mask = np.zeros((12, 16), dtype=np.uint8)
        mask[:6] = 255
        found = sample(depth_npy=npy(DEPTH), mask_png=png(mask))
        assert np.array_equal(np.isfinite(found.depth), mask > 0)
        assert not found.sparse

    def test_sparse_depth_as_a_map_and_as_points(self):
        sparse = np.where(RNG.random((12, 16)) < 0.2, DEPTH, 0)
        as_map = sample(depth_npy=npy(sparse))
        y, x = np.nonzero(sparse)
        as_points = sample(points_npy=npy(np.stack([x + 0.3, y + 0.8, sparse[y, x]], 1)))
        assert as_map.sparse
        assert as_points.sparse
        assert np.array_equal(as_map.depth, as_points.depth, equal_nan=True)
        assert np.array_equal(np.nan_to_num(as_map.depth), sparse)

    def test_depth_of_another_resolution_covers_the_same_view(self):
        found = sample(depth_npy=npy(DEPTH[::2, ::2]))
        assert np.array_equal(found.depth, DEPTH[::2, ::2].repeat(2, 0).repeat(2, 1))

    @pytest.mark.parametrize(
        ("files", "reason"),
        [
            ({"png": b"\x89PNG broken"}, r"image\.png is not an image"),
            ({"jpg": png(PICTURE)}, "two files for its image, jpg and png"),
            ({"depth_npy": npy(DEPTH[:, :9])}, "depth is 9x12 and its image 16x12"),
            ({"depth_npy": npy(np.zeros((12, 16)))}, r"depth\.npy has no pixel with a depth"),
            ({"depth_png": png(PICTURE)}, r"depth\.png is a color picture"),
            ({"depth_npy": npy(DEPTH), "json": facts(depth_kind="lidar")}, "depth_kind is 'lidar': use metric"),
            ({"depth_npy": npy(DEPTH), "json": facts(depth_scale=-1)}, "depth_scale is -1"),
            ({"depth_npy": npy(DEPTH), "json": b"{"}, "json cannot be read"),
            ({"depth_npy": npy(DEPTH), "points_npy": npy(np.ones((1, 3)))}, "both a depth map and points"),
            ({"depth_npy": npy(np.array([None, 1]))}, "not a plain .npy array"),
            ({"txt": b"\xe9t\xe9"}, "caption is not UTF-8"),
            ({"png": png(DEPTH.astype(np.uint16))}, r"Call that KEY\.depth\.png"),
        ],
    )
    def test_what_cannot_be_used_says_why(self, files, reason):
        with pytest.raises(ValueError, match=reason) as caught:
            sample(**files)
        assert "/tmp" not in str(caught.value)

    def test_a_picture_without_image_and_one_turned_by_its_camera(self):
        with pytest.raises(ValueError, match="no image, only txt"):
            decode_files("k", {"txt": b"a"})
        turned = Image.Exif()
        turned[0x0112] = 6
        rotated = {"png": png(PICTURE, exif=turned)}
        assert np.array_equal(decode_files("k", rotated).image, np.rot90(PICTURE, -1))
        with pytest.raises(ValueError, match="turned by its camera tag"):
            decode_files("k", {**rotated, "depth.npy": npy(DEPTH)})


class TestShards:
    @pytest.fixture
    def tar(self, tmp_path):
        """Three samples by webdataset's own writer, the second without a readable image."""
        with webdataset.TarWriter(str(tmp_path / "a-000.tar"), encoder=False) as writer:
            for number in range(3):
                image = png(PICTURE) if number != 1 else b"no"
                writer.write({"__key__": f"in/{number}", "png": image, "depth.npy": npy(DEPTH), "txt": b"a cube"})
        return tmp_path / "a-000.tar"

    def test_a_tar_gives_what_webdataset_reads_from_it(self, tar):
        theirs = list(webdataset.WebDataset(str(tar), shardshuffle=False))
        ours = samples_of(tar)
        assert [(r.key, r.files) for r in ours] == [
            (s["__key__"], {k: v for k, v in s.items() if not k.startswith("__")}) for s in theirs
        ]

    def test_patterns_folders_and_object_storage(self, tar):
        memory = fsspec.filesystem("memory")
        memory.pipe_file("/bucket/a-000.tar", tar.read_bytes())
        for location in (tar, tar.parent, tar.parent / "a-{000..000}.tar", tar.parent / "*.tar"):
            assert [r.key for r in samples_of(location)] == ["in/0", "in/1", "in/2"]
        for location in ("memory://bucket/a-000.tar", "memory://bucket", "memory://bucket/*.tar"):
            assert [r.key for r in samples_of(location)] == ["in/0", "in/1", "in/2"]

    def test_a_tar_that_was_cut_short_gives_what_is_whole(self, tar):
        with tarfile.open(tar) as file:
            last = file.getmember("in/2.png")
        tar.write_bytes(tar.read_bytes()[: last.offset_data + 4])
        *whole, end = samples_of(tar)
        assert [r.key for r in whole] == ["in/0", "in/1"]
        assert end == Broken(str(tar), "in/2", "the tar is damaged or cut short from here on (unexpected end of data)")

    def test_a_file_that_is_there_twice_takes_its_sample_out(self, tar):
        with tarfile.open(tar, "w") as file:
            for name in ("0.png", "1.png", "1.png", "2.png"):
                info = tarfile.TarInfo(name)
                info.size = 3
                file.addfile(info, io.BytesIO(b"abc"))
        zero, one, two = samples_of(tar)
        assert (zero.key, two.key) == ("0", "2")
        assert one == Broken(str(tar), "1", "it has two files of the same name")

    def test_missing_shards_have_a_sentence(self, tar):
        with pytest.raises(MissingShardError, match=r"a-001\.tar does not exist"):
            samples_of(tar.parent / "a-{000..001}.tar")
        with pytest.raises(ValueError, match="does not exist: give a folder"):
            find_shards([str(tar.parent / "nothing")])
        with pytest.raises(ValueError, match=r"No \.tar file matches"):
            find_shards([str(tar.parent / "b*.tar")])
        (tar.parent / "empty").mkdir()
        with pytest.raises(ValueError, match=r"neither \.tar shards nor images"):
            find_shards([str(tar.parent / "empty")])
        with pytest.raises(ValueError, match="would both be called a-000"):
            find_shards([str(tar), f"{tar.parent}/a-{{000..000}}.tar"])

    @pytest.mark.parametrize(
        ("path", "key", "ending"),
        [
            ("x.jpg", "x", "jpg"),
            ("a/x.y.JPG", "a/x.y", "JPG"),
            ("a/x.depth.png", "a/x", "depth.png"),
            ("x.exr", "x", "exr"),
            ("rgb/s/x.png", "s/x", "png"),
            ("depth/s/x.png", "s/x", "depth.png"),
            ("masks/x.png", "x", "masks.png"),
            ("captions/x.txt", "x", "txt"),
            ("x.mp4", "x", None),
            (".x.jpg", ".x.jpg", None),
        ],
    )
    def test_names_in_folders(self, path, key, ending):
        expected = "mask.png" if ending == "masks.png" else ending
        assert folder_key(path) == (key, expected)

    def test_a_folder_gives_the_same_samples_as_a_tar(self, tar, tmp_path):
        with tarfile.open(tar) as file:
            file.extractall(tmp_path / "out", filter="data")
        (tmp_path / "out" / "in" / "note.txt").write_text("of no picture")
        assert [(r.key, r.files) for r in samples_of(tmp_path / "out")] == [(r.key, r.files) for r in samples_of(tar)]

    def test_check_counts_and_lists(self, tar, tmp_path):
        (tmp_path / "b").mkdir()
        for name, depth in (("0", DEPTH), ("1", np.where(DEPTH > 8, DEPTH, 0))):
            (tmp_path / "b" / f"{name}.png").write_bytes(png(PICTURE))
            (tmp_path / "b" / f"{name}.depth.npy").write_bytes(npy(depth))
        found = check(find_shards([str(tar), str(tmp_path / "b"), str(tmp_path / "c-{0..0}.tar")]), None, lambda: None)
        assert (found["samples"], found["usable"], found["sizes"]) == (5, 4, {"16x12": 4})
        assert (found["captions"]["missing"], found["depth"]["maps"], found["depth"]["sparse"]) == (2, 4, 1)
        assert {entry["key"] for entry in found["broken"]} == {"in/1", ""}
        pixels = np.concatenate([DEPTH.ravel()] * 3 + [DEPTH[DEPTH > 8]])
        assert found["depth"]["without"] == 0
        (kind,) = found["depth"]["kinds"].values()
        assert (kind["maps"], kind["min"]) == (4, DEPTH.min())
        for mark in (5, 50, 95):
            assert kind[f"p{mark}"] == pytest.approx(np.percentile(pixels, mark), rel=0.02)
        json.dumps(found)


def test_scenes_are_the_same_in_both_formats(tmp_path):
    write_dataset(tmp_path / "s", 3, seed=4, size=32, shard_size=2, progress=False)
    paths = write_dataset(tmp_path / "w", 3, seed=4, size=32, shard_size=2, progress=False, format="webdataset")
    assert [path.name for path in paths] == ["scenes-00000.tar", "scenes-00001.tar"]
    for one, other in zip(samples_of(tmp_path / "s"), samples_of(tmp_path / "w"), strict=True):
        ours, theirs = one.decode(), other.decode()
        assert np.array_equal(ours.image, theirs.image)
        assert np.array_equal(ours.depth, theirs.depth)
        assert (ours.caption, ours.kind) == (theirs.caption, theirs.kind)
    before = [path.read_bytes() for path in paths]
    paths[0].unlink()
    write_dataset(tmp_path / "w", 3, seed=4, size=32, shard_size=2, progress=False, format="webdataset")
    assert [path.read_bytes() for path in paths] == before
    with pytest.raises(ValueError, match="holds other scenes"):
        write_dataset(tmp_path / "w", 3, seed=5, size=32, shard_size=2, progress=False, format="webdataset")


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    (tmp_path / "x.tar").touch()
    monkeypatch.setitem(sys.modules, "webdataset", None)
    monkeypatch.setitem(sys.modules, "webdataset.tariterators", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package webdataset: pip install '.*\[train\]'"):
        samples_of(tmp_path / "x.tar")
