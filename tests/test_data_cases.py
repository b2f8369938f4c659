"""Collections as other programs write them: captions of every form, and files that are paired by their names."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mforce.cli.app import app
from mforce.training.data.check import check
from mforce.training.data.sample import decode_files
from mforce.training.data.shards import find_shards

CASES = Path(__file__).parent / "cases"
PICTURE = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
DEPTH = np.random.default_rng(1).uniform(0.5, 9, (12, 16)).astype(np.float32)


def bytes_of(array: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, array)
    else:
        Image.fromarray(array).save(file, kind)
    return file.getvalue()


def look(*locations) -> dict:
    return check(find_shards([str(at) for at in locations]), None, lambda: None)


def test_captions_of_the_reports():
    samples = {r.key: r.decode() for r in find_shards([str(CASES / "12_captions" / "captions.tar")])[0].records()}
    assert samples["null"].captions == ()
    assert samples["list"].captions == ("a red cube", "a cube")
    assert samples["bom"].captions == ("red cube",)
    found = look(CASES / "12_captions" / "captions.tar")["captions"]
    assert (found["missing"], found["several"]) == (1, 1)


def test_epochs_take_the_captions_of_a_sample_in_turn():
    texts = ["one", "two", "three"]
    image = bytes_of(PICTURE, "png")
    sample = decode_files("k", {"png": image, "json": json.dumps({"caption": texts}).encode()})
    for seed in range(4):
        drawn = [sample.caption_of(epoch, seed) for epoch in range(3)]
        assert sorted(drawn) == sorted(texts)
    assert len({sample.caption_of(0, seed) for seed in range(30)}) == 3


@pytest.mark.parametrize("caption", [3, {"en": "a cube"}, ["a", 1], True])
def test_a_caption_that_is_no_text_is_named(caption):
    files = {"png": bytes_of(PICTURE, "png"), "json": json.dumps({"caption": caption}).encode()}
    with pytest.raises(ValueError, match="use a text, a list of texts or null"):
        decode_files("k", files)


def test_folders_of_well_known_collections_are_paired(tmp_path):
    for name, shape in (("vkitti", None), ("diode", None)):
        (shard,) = find_shards([str(CASES / "13_unpaired_depth" / name)])
        (record,) = shard.records()
        sample = record.decode()
        assert sample.depth is not None, (name, shape)
    assert np.array_equal(sample.depth, np.load(CASES / "13_unpaired_depth/diode/00019_indoors_000_depth.npy"))


#: Paths of a picture, its depth and its mask as collections name them.
LAYOUTS = {
    "Virtual KITTI": ("S1/clone/frames/rgb/Camera_0/rgb_00000.jpg", "S1/clone/frames/depth/Camera_0/depth_00000.png"),
    "DIODE": ("indoors/s1/a_000.png", "indoors/s1/a_000_depth.npy", "indoors/s1/a_000_depth_mask.npy"),
    "NYUv2 of BTS": ("bathroom/rgb_00045.jpg", "bathroom/sync_depth_00045.png"),
    "TartanAir": ("P001/image_left/000000_left.png", "P001/depth_left/000000_left_depth.npy"),
    "ScanNet": ("scene/color/0.jpg", "scene/depth/0.png"),
    "BlendedMVS": ("s/blended_images/00000000.jpg", "s/rendered_depth_maps/00000000.pfm"),
    "our own": ("x.jpg", "x.depth.npy", "x.mask.png"),
    "folders": ("images/a/x.jpg", "depths/a/x.png", "masks/a/x.png"),
    "one folder": ("x.png", "x_depth.png", "x_mask.png"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_paired(name, tmp_path):
    millimeters = np.round(DEPTH * 1000).astype(np.uint16)
    mask = np.zeros(DEPTH.shape, dtype=np.uint8)
    mask[:8] = 255
    paths = LAYOUTS[name]
    for path, array in zip(paths, (PICTURE, millimeters, mask), strict=False):
        file = tmp_path / "data" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".npy":
            np.save(file, array if array is not mask else array > 0)
        else:
            if file.suffix == ".pfm":
                array = array.astype(np.float32)
            Image.fromarray(array).save(file)
    (shard,) = find_shards([str(tmp_path / "data")])
    (record,) = shard.records()
    depth = record.decode().depth
    valid = mask > 0 if len(paths) > 2 else np.ones(DEPTH.shape, dtype=bool)
    np.testing.assert_array_equal(depth, np.where(valid, millimeters, np.nan).astype(np.float32))


def test_depth_without_a_picture_is_said_and_strict_about(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(PICTURE).save(tmp_path / name)
    for name in ("0001.npy", "0002.npy"):
        (tmp_path / "depth").mkdir(exist_ok=True)
        np.save(tmp_path / "depth" / name, DEPTH)
    found = look(tmp_path)
    assert found["depth"]["maps"] == 0
    assert [entry["reason"] for entry in found["broken"]] == [
        "2 depth file(s) have no picture of their name, 0001.npy for one"
    ]
    runner = CliRunner()
    assert runner.invoke(app, ["data", "check", str(tmp_path)]).exit_code == 0
    assert runner.invoke(app, ["data", "check", str(tmp_path), "--strict"]).exit_code == 1


def test_the_check_tells_kinds_notes_and_pictures_without_depth_apart(tmp_path):
    for number in range(6):
        Image.fromarray(PICTURE).save(tmp_path / f"{number}.png")
    for number, (kind, scale) in enumerate([("metric", 0.5), ("metric", 1), ("disparity", 1), ("relative", 1)]):
        np.save(tmp_path / f"{number}.depth.npy", np.where(DEPTH < 1, -1, DEPTH))
        (tmp_path / f"{number}.json").write_text(json.dumps({"depth_kind": kind, "depth_scale": scale}))
    found = look(tmp_path)
    depth = found["depth"]
    assert (depth["maps"], depth["without"]) == (4, 2)
    known = DEPTH[DEPTH >= 1]
    assert {kind: entry["maps"] for kind, entry in depth["kinds"].items()} == {
        "metric": 2,
        "disparity": 1,
        "relative": 1,
    }
    assert depth["kinds"]["metric"]["unit"].startswith("meters")
    assert depth["kinds"]["metric"]["min"] == pytest.approx(known.min() / 2)
    assert depth["kinds"]["metric"]["max"] == pytest.approx(known.max())
    assert depth["kinds"]["disparity"]["min"] == pytest.approx(1 / known.max())
    for entry in depth["kinds"].values():
        assert entry["min"] <= entry["p1"] <= entry["p99"] <= entry["max"]
    (note,) = found["notes"]  # four times the same, with other names and numbers
    assert (note["count"], note["key"]) == (4, "0")
    assert f"{(DEPTH < 1).sum()} negative pixels" in note["reason"]
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    said = " ".join((result.output + result.stderr).split())
    assert "Note, 4 of 6 samples, as in 0:" in said
    assert "maps 4, without 2" in said
    assert "{" not in said


HARNESSES = Path(__file__).parent / "data" / "depth_harnesses"


def test_moges_folders_are_samples():
    """Depth is a logarithmic PNG between planes that its text names; the values are those of MoGe's own loader."""
    records = {r.key: r.decode() for shard in find_shards([str(HARNESSES / "moge")]) for r in shard.records()}
    assert set(records) == {"centered", "off_center", "sparse"}
    for key, sample in records.items():
        png = Image.open(HARNESSES / "moge" / key / "depth.png")
        near, far = float(png.text["near"]), float(png.text["far"])
        values = np.asarray(png).astype(np.float64)
        wanted = near ** (1 - (values - 1) / 65533) * far ** ((values - 1) / 65533)
        wanted[(values == 0) | (values == 65535)] = np.nan
        np.testing.assert_allclose(sample.depth, wanted * float(png.text.get("unit", 1)), rtol=1e-4)
        assert sample.image.shape[:2] == sample.depth.shape


@pytest.mark.parametrize(
    ("image", "depth", "beside"),
    [
        ("s/rgb_0045.png", "s/depth_0045.png", "s/filled_0045.png"),  # NYUv2
        ("ai_001_001/rgb_cam_00_fr0000.png", "ai_001_001/depth_plane_cam_00_fr0000.png", None),  # Hypersim
        ("Scene01/rgb/Camera_0/rgb_00001.jpg", "Scene01/depth/Camera_0/depth_00001.png", None),  # Virtual KITTI
        ("scene/x.png", "scene/x_depth.png", None),
    ],
)
def test_marigolds_names(tmp_path, image, depth, beside):
    for path, array in ((image, PICTURE), (depth, (DEPTH * 1000).astype(np.uint16)), (beside, None)):
        if path is not None:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full(DEPTH.shape, 7, np.uint16) if array is None else array).save(tmp_path / path)
    (shard,) = find_shards([str(tmp_path)])
    (record,) = shard.records()
    np.testing.assert_array_equal(record.decode().depth, (DEPTH * 1000).astype(np.uint16).astype(np.float32))


def test_pictures_whose_names_begin_with_depth_stay_pictures(tmp_path):
    for name in ("depth_charge.jpg", "image_001.jpg", "rgb_002.jpg", "mask_of_zorro.png"):
        Image.fromarray(PICTURE).save(tmp_path / name)
    keys = [record.key for shard in find_shards([str(tmp_path)]) for record in shard.records()]
    assert keys == ["depth_charge", "image_001", "mask_of_zorro", "rgb_002"]


def test_8_bit_depth_is_not_guessed_in_training():
    gray = bytes_of(PICTURE[..., 0], "png")
    files = {"png": bytes_of(PICTURE, "png"), "depth.png": gray}
    with pytest.raises(ValueError, match=r"8 bits per pixel.*depth_kind disparity"):
        decode_files("k", files)
    sample = decode_files("k", {**files, "json": b'{"depth_kind": "disparity"}'})
    assert np.isfinite(sample.depth).all()
    assert any("stretched" in note for note in sample.notes)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"depth_scale": 1' + b"0" * 400 + b"}", b'{"depth_scale": NaN}', b"\x00\xff{"]
)
def test_hostile_facts_have_a_sentence(content):
    files = {"png": bytes_of(PICTURE, "png"), "depth.npy": bytes_of(DEPTH, "npy"), "json": content}
    with pytest.raises(ValueError, match="its ") as caught:
        decode_files("k", files)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
