"""``mforce eval depth``: what others predicted, what the model predicts, broken files, resuming, processes, peers."""

import csv
import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import marigold_files

pytest.importorskip("typer")

from command_line import run
from mforce.cli import depth_evaluation
from mforce.cli.depth_evaluation import evaluate_depth
from mforce.cli.spread import Workers, spread
from mforce.evaluation.depth import peers
from mforce.evaluation.depth.datasets import DataSpec, open_data
from mforce.evaluation.depth.example import Example
from mforce.evaluation.depth.normals import normal_errors, normals_from_depth
from mforce.evaluation.depth.predictors import FromFiles, FromPeer, open_predictor
from mforce.evaluation.depth.saved import SavedPredictions
from mforce.evaluation.depth.scorer import Scorer
from mforce.evaluation.table import Row, Table
from mforce.mforce_core.depth.files import write_16_bit, write_exr, write_pfm

DATA = Path(__file__).parent / "data" / "depth_harnesses"


@pytest.fixture
def scannet(tmp_path: Path) -> DataSpec:
    """Four pictures in Marigold's layout."""
    lines = marigold_files.write(tmp_path / "data", "scannet", 4)
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return DataSpec("scannet", tmp_path / "data", "auto", tmp_path / "list.txt")


def predictions(spec: DataSpec, folder: Path, error: float = 0.1) -> FromFiles:
    """Saved maps that are wrong by a known amount."""
    data, _ = open_data(spec)
    for index, name in enumerate(data.names):
        example = data.read(index)
        wrong = np.where(example.depth > 5, 1 + error, 1 - error) * example.depth
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", wrong.astype(np.float32))
    return FromFiles(folder, "depth")


def test_saved_maps_are_scored(scannet: DataSpec, tmp_path: Path) -> None:
    predictions(scannet, tmp_path / "maps")
    out = tmp_path / "out"
    options = ("--data", scannet.path, "--list", scannet.listing, "--predictions", tmp_path / "maps", "-o", out)
    printed = run("eval", "depth", "scannet", *options, "--align", "none,median", "--protocol", "marigold")
    assert "protocol marigold" in printed
    summary = json.loads((out / "summary.json").read_text())
    assert summary["pictures"] == 4
    assert summary["failed"] == {}
    assert summary["none.absrel"] == pytest.approx(0.1, rel=1e-5)
    assert summary["none.delta1"] == 1
    assert {"report.md", "pictures.csv", "worst.jpg", "settings.json"} <= {file.name for file in out.iterdir()}
    with (out / "pictures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["none.absrel"]) for row in rows] == pytest.approx([0.1] * 4, rel=1e-5)
    assert "none.absrel | 0.1 |" in (out / "report.md").read_text()


@pytest.mark.parametrize(("name", "fit"), [("moge", "affine-disparity"), ("marigold", "least-square-disparity")])
def test_disparity_is_aligned_as_disparity(name: str, fit: str, scannet: DataSpec, tmp_path: Path) -> None:
    predictions(scannet, tmp_path / "maps", error=0.0)
    for path in (tmp_path / "maps").rglob("*.npy"):
        depth = np.load(path)
        np.save(path, np.divide(3, depth, out=np.zeros_like(depth), where=depth > 0) + 0.5)
    out = tmp_path / "out"
    options = ("--data", scannet.path, "--list", scannet.listing, "--predictions", tmp_path / "maps", "-o", out)
    run("eval", "depth", "scannet", *options, "--kind", "disparity", "--protocol", name)
    summary = json.loads((out / "summary.json").read_text())
    assert {key.split(".")[0] for key in summary if key.endswith(".absrel")} == {fit}
    assert summary[f"{fit}.absrel"] < 1e-4


def test_broken_pictures_are_named_and_counted(scannet: DataSpec, tmp_path: Path) -> None:
    predictions(scannet, tmp_path / "maps")
    (tmp_path / "maps" / "scene" / "scannet_1.npy").unlink()
    (tmp_path / "maps" / "scene" / "scannet_2.npy").write_bytes(b"no array")
    (scannet.path / "scene" / "scannet_3.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    options = ("--data", scannet.path, "--list", scannet.listing, "--predictions", tmp_path / "maps", "-o", out)
    printed = run("eval", "depth", "scannet", *options, code=1)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["pictures"] == 1
    assert set(summary["failed"]) == {f"scene/scannet_{number}" for number in (1, 2, 3)}
    assert all(name in printed.replace("\n", "") for name in summary["failed"])
    # Mended, only what failed is scored.
    marigold_files.write(scannet.path, "scannet", 4)
    predictions(scannet, tmp_path / "maps")
    run("eval", "depth", "scannet", *options)
    assert json.loads((out / "summary.json").read_text())["pictures"] == 4


def test_a_stopped_run_goes_on(scannet: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = predictions(scannet, tmp_path / "maps")
    arguments = (scannet, maps, None, [])
    whole = evaluate_depth(*arguments, tmp_path / "whole", overwrite=False, workers=Workers())
    seen: list[int] = []

    def interrupted(make: object, job: object, items: list[int], workers: Workers) -> object:
        for number, row in enumerate(spread(make, job, items, workers)):
            if number == 2 and not seen:
                seen.extend(items)
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(depth_evaluation, "spread", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_depth(*arguments, tmp_path / "out", overwrite=False, workers=Workers())
    with (tmp_path / "out" / "pictures.csv").open("a") as file:
        file.write("scene/scannet_3,,1.0,0.0")  # a line that a killed process left
    again = evaluate_depth(*arguments, tmp_path / "out", overwrite=False, workers=Workers())
    assert again == whole
    assert len(seen) == 4
    with pytest.raises(ValueError, match="other settings"):
        evaluate_depth(scannet, maps, None, ["median"], tmp_path / "out", overwrite=False, workers=Workers())
    evaluate_depth(scannet, maps, None, ["median"], tmp_path / "out", overwrite=True, workers=Workers())
    assert [path.name for path in (tmp_path / "out").glob(".*")] == []


def test_pictures_whose_files_have_changed_are_scored_again(scannet: DataSpec, tmp_path: Path) -> None:
    maps = predictions(scannet, tmp_path / "maps")
    arguments = (scannet, maps, None, ["none"], tmp_path / "out")
    evaluate_depth(*arguments, overwrite=False, workers=Workers())
    before = Table(tmp_path / "out", json.loads((tmp_path / "out" / "settings.json").read_text())).rows
    depth = np.load(maps.folder / "scene" / "scannet_1.npy")
    np.save(maps.folder / "scene" / "scannet_1.npy", 2 * depth)
    with Image.open(scannet.path / "scene" / "scannet_2.png") as file:
        truth = np.asarray(file)
    Image.fromarray((truth // 2).astype(truth.dtype)).save(scannet.path / "scene" / "scannet_2.png")
    evaluate_depth(*arguments, overwrite=False, workers=Workers())
    after = Table(tmp_path / "out", json.loads((tmp_path / "out" / "settings.json").read_text())).rows
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"scene/scannet_1", "scene/scannet_2"}
    assert after["scene/scannet_1"].measures["none.absrel"] > 0.5


def test_a_peer_in_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"one")
    peer = FromPeer(f"transformers:{tmp_path}", "depth")
    before = depth_evaluation.weights_of(peer)
    (tmp_path / "weights.safetensors").write_bytes(b"other")
    assert before != depth_evaluation.weights_of(peer)
    assert depth_evaluation.weights_of(FromPeer("transformers:hub/name", "depth")) == {}


def test_processes_give_the_same_numbers(scannet: DataSpec, tmp_path: Path) -> None:
    maps = predictions(scannet, tmp_path / "maps")
    one = evaluate_depth(scannet, maps, None, [], tmp_path / "one", overwrite=False, workers=Workers())
    two = evaluate_depth(scannet, maps, None, [], tmp_path / "two", overwrite=False, workers=Workers(("cpu", "cpu")))
    assert one == two


@pytest.mark.usefixtures("ray_of_two_processes")
def test_ray_gives_the_same_numbers(scannet: DataSpec, tmp_path: Path) -> None:
    maps = predictions(scannet, tmp_path / "maps")
    one = evaluate_depth(scannet, maps, None, [], tmp_path / "one", overwrite=False, workers=Workers())
    two = evaluate_depth(scannet, maps, None, [], tmp_path / "two", overwrite=False, workers=Workers(ray=2))
    assert one == two


class Refusing:
    """Work that cannot start."""

    def __init__(self, job: object, device: str) -> None:
        raise ValueError(f"{device} is on fire")


def test_a_process_that_cannot_start_says_why() -> None:
    with pytest.raises(ValueError, match="cpu is on fire"):
        list(spread(Refusing, None, [1, 2, 3], Workers(("cpu", "cpu"))))


class Canceled:
    """Work that Ctrl-C ends, as it reaches every process of a terminal."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder = folder

    def __call__(self, item: int) -> None:
        (self.folder / str(item)).touch()
        raise KeyboardInterrupt


def test_canceled_processes_begin_nothing_more(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        list(spread(Canceled, tmp_path, [0, 1, 2, 3], Workers(("cpu", "cpu"))))
    assert {path.name for path in tmp_path.iterdir()} <= {"0", "1"}


@pytest.mark.parametrize("form", ["npy", "npz", "exr", "pfm", "16-bit png", "log png"])
def test_maps_of_all_forms(form: str, tmp_path: Path) -> None:
    depth = np.linspace(1, 4, 48 * 64, dtype=np.float32).reshape(48, 64)
    if form == "npy":
        np.save(tmp_path / "a.npy", depth)
    elif form == "npz":
        np.savez(tmp_path / "a.npz", depth=depth)
    elif form == "exr":
        pytest.importorskip("OpenEXR")
        write_exr(tmp_path / "a.exr", depth)
    elif form == "pfm":
        write_pfm(tmp_path / "a.pfm", depth)
    elif form == "16-bit png":
        write_16_bit(tmp_path / "a.png", depth)
    else:
        shutil.copy(DATA / "moge" / "centered" / "depth.png", tmp_path / "a.png")
        depth = 2 + 0.02 * np.arange(120) * np.ones((90, 1))
    found = SavedPredictions(tmp_path, "depth").predict(example("a", depth.shape))
    assert found.shape == depth.shape
    known = np.isfinite(found)
    assert known.mean() > 0.95
    ratio = (found / depth)[known]
    assert np.quantile(ratio, 0.8) / np.quantile(ratio, 0.2) == pytest.approx(
        1, abs=0.03 if form == "log png" else 1e-3
    )


def example(name: str, shape: tuple[int, int]) -> Example:
    return Example(name, np.zeros((*shape, 3), np.uint8), np.ones(shape, np.float32), np.ones(shape, bool))


@pytest.mark.parametrize(
    ("file", "picture"),
    [
        ("test/kitchen/pred_0001.npy", "test/kitchen/rgb_0001"),
        ("a/pred_b.npy", "a/b"),
        ("a/b/depth.npy", "a/b"),
        ("a/b_depth.npy", "a/b"),
        ("a_b.npy", "a/b"),
        ("elsewhere/b.npy", "a/b"),
    ],
)
def test_names_of_saved_maps(file: str, picture: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    np.save(tmp_path / file, np.full((4, 6), 2.0))
    assert SavedPredictions(tmp_path, "depth").predict(example(picture, (4, 6)))[0, 0] == 2
    with pytest.raises(ValueError, match="no prediction"):
        SavedPredictions(tmp_path, "depth").predict(example("a/c", (4, 6)))


def test_a_map_is_not_taken_for_another_picture_of_the_same_name(tmp_path: Path) -> None:
    """KITTI numbers the frames of every drive from 0."""
    (tmp_path / "drive_1").mkdir()
    np.save(tmp_path / "drive_1" / "0005.npy", np.full((4, 6), 2.0))
    maps = open_predictor(FromFiles(tmp_path, "depth"), "cpu", print, ["drive_1/0005", "drive_2/0005"])
    assert maps.predict(example("drive_1/0005", (4, 6)))[0, 0] == 2
    with pytest.raises(ValueError, match="no prediction for drive_2/0005"):
        maps.predict(example("drive_2/0005", (4, 6)))


def test_missing_pixels_of_a_prediction_cost(scannet: DataSpec, tmp_path: Path) -> None:
    maps = predictions(scannet, tmp_path / "maps", error=0.0)
    path = tmp_path / "maps" / "scene" / "scannet_0.npy"
    holes = np.load(path)
    holes[::2] = np.nan
    np.save(path, holes)
    out = tmp_path / "out"
    evaluate_depth(scannet, maps, None, ["none"], out, overwrite=False, workers=Workers())
    with (out / "pictures.csv").open(newline="") as file:
        first, second, *_ = csv.DictReader(file)
    assert float(first["missing"]) == pytest.approx(float(first["none.absrel"])) == pytest.approx(0.5, abs=0.02)
    assert float(second["none.absrel"]) == 0


def test_tables_keep_measures_that_come_later(tmp_path: Path) -> None:
    table = Table(tmp_path / "run", {"a": 1})
    for row in (Row("b", {}, "broken, in a way"), Row("a", {"x": 1.0}), Row("c", {"x": 2.0, "y": 1e-17})):
        table.add(row)
    table.close()
    again = Table(tmp_path / "run", {"a": 1})
    assert again.rows == {"a": Row("a", {"x": 1.0}), "c": Row("c", {"x": 2.0, "y": 1e-17})}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="something else"):
        Table(tmp_path / "other", {})


def test_a_table_stays_whole_where_it_cannot_be_written_anew(tmp_path: Path) -> None:
    class Unwritable(float):
        def __repr__(self) -> str:
            raise OSError("No space left on device")

    table = Table(tmp_path, {})
    table.add(Row("a", {"x": 1.0}))
    before = table.path.read_bytes()
    with pytest.raises(OSError, match="No space"):
        table.add(Row("b", {"x": 2.0, "y": Unwritable()}))
    assert table.path.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures.csv", "settings.json"]


def test_normals_of_a_plane_and_of_a_sphere() -> None:
    intrinsics = np.array([[0.9, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]])
    height, width = 60, 80
    x = ((np.arange(width) + 0.5) / width - 0.5) / 0.9 * np.ones((height, 1))
    y = ((np.arange(height) + 0.5) / height - 0.5)[:, None] / 1.2 * np.ones((1, width))
    rays = np.stack([x, y, np.ones_like(x)], -1)
    normal = np.array([0.2, -0.3, -1.0]) / np.linalg.norm([0.2, -0.3, -1.0])
    depth = normal[2] * 5 / (rays @ normal)
    found, known = normals_from_depth(depth, np.ones_like(depth, bool), intrinsics)
    assert known.all()
    np.testing.assert_allclose(found, np.broadcast_to(normal, found.shape), atol=1e-9)
    # A sphere of radius 2 around (0, 0, 5): its normals are known.
    a, b = (rays**2).sum(-1), rays[..., 2] * 5
    inside = b**2 - a * 21 > 0.5
    sphere = (b - np.sqrt(np.maximum(b**2 - a * 21, 0))) / a
    found, known = normals_from_depth(sphere, inside, intrinsics)
    expected = ((rays * sphere[..., None] - [0, 0, 5]) / 2)[1:-1, 1:-1]
    angle = np.degrees(np.arccos(np.clip((found * expected).sum(-1), -1, 1)))[known]
    assert known.sum() > 300
    assert angle.max() < 3
    errors = normal_errors(depth * 1.7, depth, np.ones_like(depth, bool), intrinsics)
    assert errors["normal_mean"] < 1e-4
    assert errors["normal_11.25"] == 1


def test_a_prediction_of_another_crop_is_refused(scannet: DataSpec, tmp_path: Path) -> None:
    maps = predictions(scannet, tmp_path / "maps")
    path = tmp_path / "maps" / "scene" / "scannet_0.npy"
    np.save(path, np.load(path)[:30])
    job = depth_evaluation.DepthJob(scannet, maps, depth_evaluation.protocol("moge"))
    assert "another crop" in Scorer(job, "cpu")(0).reason
    np.save(path, np.load(tmp_path / "maps" / "scene" / "scannet_1.npy")[::2, ::2])
    assert Scorer(job, "cpu")(0).measures["scale.absrel"] > 0


def test_scenes_are_a_data_set_of_the_harness(tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--scenes", 2, "--steps", 2, "--ensemble", 2, "--device", "cpu", "-o", out)
    printed = run("eval", "depth", "scenes", *options, "--ensemble-method", "median")
    assert "ensemble of 2" in printed
    summary = json.loads((out / "summary.json").read_text())
    assert 0 < summary["affine-depth.absrel"] < summary["scale.absrel"] < 0.5
    assert 0 < summary["boundary.depth_pro_f1"] < 1
    run("eval", "depth", "scenes", *options[:-1], tmp_path / "marigold")
    summary = json.loads((tmp_path / "marigold" / "summary.json").read_text())
    assert 0 < summary["affine-depth.absrel"] < 0.5
    assert "scale.absrel" not in summary  # Marigold's ensemble has no scale


def test_a_measured_picture_goes_through_every_part(tmp_path: Path) -> None:
    """Middlebury's motorcycle in MoGe's layout, and nano's depth of it."""
    pictures = pytest.importorskip("skimage.data")
    try:
        left, _, disparity = pictures.stereo_motorcycle()
    except Exception as error:
        pytest.skip(f"the picture cannot be had: {error}")
    folder = tmp_path / "ibims1" / "motorcycle"
    folder.mkdir(parents=True)
    Image.fromarray(left).save(folder / "image.jpg", quality=95)
    known = np.isfinite(disparity)
    depth = 193.001 * 994.978 / (np.where(known, disparity, 0) + 32.778) / 1000
    write_moge_png(folder / "depth.png", np.where(known, depth, np.nan))
    (folder / "meta.json").write_text(
        json.dumps({"intrinsics": [[994.978 / 741, 0, 311.193 / 741], [0, 994.978 / 500, 254.877 / 500], [0, 0, 1]]})
    )
    (folder.parent / ".index.txt").write_text("motorcycle\n")
    out = tmp_path / "out"
    run("eval", "depth", "ibims1", "--data", folder.parent, "--normals", "--steps", 4, "--device", "cpu", "-o", out)
    summary = json.loads((out / "summary.json").read_text())
    assert 0.02 < summary["affine-depth.absrel"] < 0.4
    assert summary["affine-depth.absrel"] < summary["scale.absrel"] * 1.001
    assert 0 < summary["affine-depth.normal_mean"] < 90
    # A map of 128 pixels, enlarged to 741, need not have one edge as sharp as the measured ones.
    assert 0 <= summary["boundary.moge_f1_r1"] < 1


def write_moge_png(path: Path, depth: np.ndarray) -> None:
    """MoGe's 16-bit logarithmic PNG."""
    from PIL.PngImagePlugin import PngInfo

    near, far = float(np.nanmin(depth)), float(np.nanmax(depth))
    share = np.log(np.nan_to_num(depth, nan=near) / near) / np.log(far / near)
    levels = np.where(np.isfinite(depth), 1 + np.round(share * 65533), 0).astype(np.uint16)
    text = PngInfo()
    text.add_text("near", str(near))
    text.add_text("far", str(far))
    Image.fromarray(levels).save(path, pnginfo=text)


def test_peers_are_called_as_their_libraries_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins with the interfaces of MoGe and diffusers, which are not installed here."""
    asked: dict[str, object] = {}

    class MoGe:
        @classmethod
        def from_pretrained(cls, name: str) -> "MoGe":
            asked["moge"] = name
            return cls()

        def to(self, device: str) -> "MoGe":
            return self

        def eval(self) -> "MoGe":
            return self

        def infer(self, image: torch.Tensor, apply_mask: bool) -> dict[str, torch.Tensor]:
            assert image.shape[0] == 3
            assert image.max() <= 1
            return {"depth": image[0] + 1}

    class Marigold:
        @classmethod
        def from_pretrained(cls, name: str, use_safetensors: bool) -> "Marigold":
            return cls()

        def to(self, device: str) -> "Marigold":
            return self

        def __call__(self, image: Image.Image, ensemble_size: int, generator: torch.Generator) -> object:
            asked["members"] = ensemble_size
            return types.SimpleNamespace(prediction=np.full((1, image.height, image.width, 1), 0.5, np.float32))

    stand_ins = {"moge.model.v2": {"MoGeModel": MoGe}, "diffusers": {"MarigoldDepthPipeline": Marigold}}
    monkeypatch.setattr(peers, "need", lambda name, purpose, install: types.SimpleNamespace(**stand_ins[name]))
    given = example("a", (6, 8))
    moge = peers.open_peer("moge:Ruicheng/moge-2-vitl", "depth", device="cpu", members=1, seed=0)
    assert moge.predict(given).shape == (6, 8)
    marigold = peers.open_peer("marigold:x", "depth", device="cpu", members=3, seed=0)
    assert marigold.predict(given).tolist() == np.full((6, 8), 0.5).tolist()
    assert asked == {"moge": "Ruicheng/moge-2-vitl", "members": 3}
    with pytest.raises(ValueError, match="A peer is"):
        peers.open_peer("midas", "depth", device="cpu", members=1, seed=0)


def test_a_model_of_transformers(tmp_path: Path) -> None:
    library = pytest.importorskip("transformers")
    try:
        config = library.DPTConfig(
            hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32,
            patch_size=8, neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, is_hybrid=False,
            backbone_out_indices=[0, 1, 2, 3],
        )  # fmt: skip
        library.DPTForDepthEstimation(config).save_pretrained(tmp_path)
        library.DPTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
        library.AutoImageProcessor.from_pretrained(tmp_path)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"this transformers cannot: {error}")
    peer = peers.open_peer(f"transformers:{tmp_path}", "disparity", device="cpu", members=1, seed=0)
    assert peer.predict(example("a", (24, 40))).shape == (24, 40)
    with pytest.raises(ValueError, match="cannot be loaded"):
        peers.open_peer(f"transformers:{tmp_path / 'nothing'}", "depth", device="cpu", members=1, seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nyu",), "There is no data set nyu"),
        (("nyuv2",), "Give the folder or tar"),
        (("nyuv2", "--data", DATA), "needs a list"),
        (("scenes", "--align", "best"), "There is no alignment best"),
        (("scenes", "--protocol", "mine"), "There is no protocol mine"),
        (("scenes", "--predictions", DATA / "nothing"), "no folder with predictions"),
        (("scenes", "--ensemble", "2", "--align", "scale"), "neither scale nor shift"),
        (("scenes", "--kind", "disparity"), "--kind is for"),
        (("scenes", "--predictions", DATA, "--kind", "far"), "--kind is depth or disparity, not far"),
        (("scenes", "--predictions", DATA, "--kind", "disparity", "--align", "median"), "median is for depth"),
        (("scenes", "--peer", "marigold:x", "--align", "scale"), "neither scale nor shift"),
        (("scenes", "--first", "0"), "--first"),
        (("scenes", "--peer", "moge:x", "--ensemble", "2"), "of no use"),
    ],
)
def test_mistakes_are_sentences(arguments: tuple[object, ...], message: str, tmp_path: Path) -> None:
    printed = run("eval", "depth", *arguments, "--device", "cpu", "-o", tmp_path / "out", code=2)
    assert message in " ".join(printed.split())
    assert "Traceback" not in printed
