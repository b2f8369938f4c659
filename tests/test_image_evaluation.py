"""``mforce eval d2i`` and the studies of paths: what is made, judged, resumed and handed to the libraries of FID."""

import json
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("typer")

from command_line import run
from mforce.cli import image_evaluation
from mforce.evaluation.images import libraries
from mforce.evaluation.images.libraries import clip_scores, distances
from mforce.evaluation.images.maker import as_depth
from mforce.evaluation.images.pairs import ListedPairs
from mforce.evaluation.studies import portions


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_pictures_are_made_from_a_list_and_judged(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(random.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    listing = tmp_path / "list.tsv"
    listing.write_text("a.jpg\ta red sphere\nbroken.jpg\ta blue cube\nb.jpg\ta green cone\n")
    out = tmp_path / "out"
    options = (listing, "--steps", 1, "--device", "cpu", "-o", out)
    printed = run("eval", "d2i", *options, code=1)
    assert "alignment scale" in " ".join(printed.split())
    found = summary(out)
    assert found["pictures"] == 2
    assert list(found["failed"]) == ["broken"]
    for folder in ("real", "made"):
        assert sorted(path.name for path in (out / folder).iterdir()) == ["a.png", "b.png"]
    before = (out / "made" / "a.png").read_bytes()
    (out / "made" / "a.png").write_bytes(b"kept")  # a row that is done is not made again
    Image.new("RGB", (30, 30)).save(tmp_path / "broken.jpg")
    run("eval", "d2i", *options)
    assert (out / "made" / "a.png").read_bytes() == b"kept" != before
    assert summary(out)["pictures"] == 3


def test_lists_need_captions(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a.jpg\n")
    with pytest.raises(ValueError, match="no caption"):
        ListedPairs(tmp_path / "list", tmp_path)
    (tmp_path / "list").write_text("a.jpg\tx\na.jpg\ty\n")
    with pytest.raises(ValueError, match="twice"):
        ListedPairs(tmp_path / "list", tmp_path)


def test_disparity_up_to_an_offset_becomes_depth() -> None:
    found = as_depth(np.array([[7.0, 2.0], [4.5, 2.0]]), "disparity", 10.0)
    assert found[0, 0] == pytest.approx(1)
    assert found[0, 1] == pytest.approx(10)
    assert found[1, 0] == pytest.approx(1 / 0.55)


def pictures(folder: Path, seed: int, count: int = 12) -> np.ndarray:
    random = np.random.default_rng(seed)
    folder.mkdir()
    made = random.integers(0, 256, (count, 20, 24, 3), dtype=np.uint8) // (1 + seed)
    for number, pixels in enumerate(made):
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return made


def frechet(real: np.ndarray, made: np.ndarray) -> float:
    """The distance of the Gaussians of features (N, C), by SciPy's matrix root."""
    from scipy.linalg import sqrtm

    gap = real.mean(0) - made.mean(0)
    a, b = np.cov(real, rowvar=False), np.cov(made, rowvar=False)
    return float(gap @ gap + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b).real))


def test_clean_fid_gets_the_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With three channel means in place of Inception's features, whose weights are a download."""
    fid = pytest.importorskip("cleanfid.fid", exc_type=ImportError)
    real, made = pictures(tmp_path / "real", 0), pictures(tmp_path / "made", 1)
    monkeypatch.setattr(fid, "build_feature_extractor", lambda *_, **__: lambda batch: batch.float().mean((2, 3)))
    found = distances(tmp_path / "real", tmp_path / "made", "legacy_tensorflow", "cpu")  # no resizing
    expected = frechet(*(images.astype(np.float64).mean((1, 2)) for images in (real, made)))
    assert found["fid"] == pytest.approx(expected, rel=1e-4)
    assert found["kid"] == distances(tmp_path / "real", tmp_path / "made", "legacy_tensorflow", "cpu")["kid"]


def test_torch_fidelity_gets_the_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fidelity = pytest.importorskip("torch_fidelity", exc_type=ImportError)

    class ChannelMeans(fidelity.FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **_: object) -> None:
            super().__init__(name, features_list)
            self.unused = torch.nn.Parameter(torch.zeros(1))

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("means",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "means"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> torch.Tensor:
            return torch.zeros(1, 3, 4, 4, dtype=torch.uint8)

        def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor]:
            return (batch.double().mean((2, 3)),)

    fidelity.register_feature_extractor("channel-means", ChannelMeans)
    calculate = fidelity.calculate_metrics
    monkeypatch.setattr(
        fidelity, "calculate_metrics", lambda **given: calculate(feature_extractor="channel-means", **given)
    )
    real, made = pictures(tmp_path / "real", 0), pictures(tmp_path / "made", 1)
    found = distances(tmp_path / "real", tmp_path / "made", "torch-fidelity", "cpu")
    expected = frechet(*(images.astype(np.float64).mean((1, 2)) for images in (real, made)))
    assert found["fid"] == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(found["kid"])


def test_saved_maps_judge_pictures_when_they_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, maps = tmp_path / "out", tmp_path / "maps"
    options = ("--scenes", 2, "--predictions", maps, "--align", "none", "--steps", 1, "--device", "cpu", "-o", out)
    names, random = ("scene_00000", "scene_00001"), np.random.default_rng(0)

    def refused(*more: object) -> str:
        return " ".join(run("eval", "d2i", *options, *more, code=2).split()).replace("│", "")

    def save(folder: str, name: str, values: np.ndarray) -> None:
        (maps / folder).mkdir(parents=True, exist_ok=True)
        np.save(maps / folder / f"{name}.npy", values)

    assert "2 of 2 pictures wait for a map, the first is scene_00000" in refused()
    assert sorted(path.stem for path in (out / "real").iterdir()) == list(names)
    height, width = np.asarray(Image.open(out / "real" / f"{names[0]}.png")).shape[:2]
    seen = random.uniform(1, 5, (2, height, width))
    for name, depth in zip(names, seen, strict=True):
        save("real", name, depth)
    assert "2 of 2 pictures wait" in refused()
    made = {name: (out / "made" / f"{name}.png").stat().st_mtime_ns for name in names}
    save("made", names[0], 1.25 * seen[0])
    assert "1 of 2 pictures wait for a map, the first is scene_00001" in refused()
    save("made", names[1], 0.5 * seen[1])
    run("eval", "d2i", *options)
    rows = (out / "pictures.csv").read_text().splitlines()
    found = {row.split(",")[0]: float(row.split(",")[rows[0].split(",").index("absrel")]) for row in rows[1:]}
    assert found == {names[0]: pytest.approx(0.25), names[1]: pytest.approx(0.5)}
    # The pictures are those that the maps were made of, not made anew.
    assert made == {name: (out / "made" / f"{name}.png").stat().st_mtime_ns for name in names}
    save("made", names[1], 0.75 * seen[1])  # a map that has changed is scored again
    run("eval", "d2i", *options)
    assert summary(out)["absrel"] == pytest.approx(0.25)
    save("real", names[1], 2 * seen[1])  # of another depth another picture is made, and the old map is not of it
    assert "scene_00001.npyisolderthan" in refused().replace(" ", "")  # long lines are wrapped
    assert made[names[1]] < (out / "made" / f"{names[1]}.png").stat().st_mtime_ns
    assert "exclude each other" in refused("--estimator", "moge:x")


def test_fid_compares_the_pictures_of_this_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def distances(real: Path, made: Path, setting: str, device: str) -> dict[str, float]:
        seen.append([sorted(path.name for path in folder.iterdir()) for folder in (real, made)])
        return {"fid": 0.0, "kid": 0.0}

    monkeypatch.setattr(image_evaluation, "need", lambda *_: None)
    monkeypatch.setattr(image_evaluation, "distances", distances)
    options = ("--fid", "clean", "--steps", 1, "--device", "cpu", "-o", tmp_path / "out")
    run("eval", "d2i", "--scenes", 2, *options)
    run("eval", "d2i", "--scenes", 1, "--overwrite", *options)
    assert seen == [[["scene_00000.png", "scene_00001.png"]] * 2, [["scene_00000.png"]] * 2]


def test_an_estimator_without_scale_needs_an_alignment_that_takes_it_away(tmp_path: Path) -> None:
    options = ("--estimator", "marigold:x", "--device", "cpu", "-o", tmp_path / "out")
    printed = run("eval", "d2i", *options, code=2)
    assert "--align is affine-depth or least-square then, not scale" in " ".join(printed.split())
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_named_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cleanfid", None)
    printed = run("eval", "d2i", "--fid", "clean", "--device", "cpu", "-o", tmp_path / "out", code=2)
    assert "clean-fid" in printed
    assert not (tmp_path / "out").exists()
    assert "FID has the settings" in run("eval", "d2i", "--fid", "best", "--device", "cpu", code=2)


def test_clip_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for CLIP whose text and picture are 60 degrees apart."""

    class Network:
        @classmethod
        def from_pretrained(cls, name: str, **_: object) -> "Network":
            return cls()

        def to(self, device: str) -> "Network":
            return self

        def eval(self) -> "Network":
            return self

        def __call__(self, **_: object) -> object:
            return types.SimpleNamespace(
                image_embeds=torch.tensor([[1.0, 0.0]]), text_embeds=torch.tensor([[0.5, 0.75**0.5]])
            )

    class Inputs(dict):
        def to(self, device: str) -> "Inputs":
            return self

    class Processor:
        @classmethod
        def from_pretrained(cls, name: str) -> "Processor":
            return cls()

        def __call__(self, text: list[str], images: list[Image.Image], **_: object) -> Inputs:
            assert text == ["a cube"]
            return Inputs()

    stand_in = types.SimpleNamespace(CLIPModel=Network, CLIPProcessor=Processor)
    monkeypatch.setattr(libraries, "need", lambda *_: stand_in)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert clip_scores([tmp_path / "a.png"], ["a cube"], "x", "cpu") == pytest.approx([50.0])


@pytest.mark.parametrize(("study", "values"), [("trajectories", "-5,5"), ("conditioning", "clean,-5")])
def test_studies_of_paths(study: str, values: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = (f"--values={values}", "--pictures", 2, "--steps", 2, "--batch", 2, "--device", "cpu", "-o", out)
    printed = run("study", study, *options)
    found = summary(out)
    assert list(found["means"]) == values.split(",")
    assert all(0 < row["absrel"][0] < 1 for row in found["means"].values())
    first, last = (row["absrel"][0] for row in found["means"].values())
    assert found["first_minus_last_absrel"][0] == pytest.approx(first - last, abs=1e-6)
    assert "judge: nano" in printed
    table = (out / "pictures.csv").read_text()
    run("study", study, *options)  # nothing is sampled twice
    assert (out / "pictures.csv").read_text() == table
    assert "other settings" in run("study", study, *options, "--align", "median", code=2)


def test_the_same_pictures_for_every_value() -> None:
    found = portions((1.0, 2.0), 5, 2)
    assert [portion.value for portion in found] == [1.0, 2.0] * 3
    assert sorted(index for portion in found for index in portion.indices if portion.value == 2.0) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trajectories", "--values", "1,x"), "--values are numbers"),
        (("trajectories", "--values", "clean,5"), "clean is for conditioning"),
        (("trajectories", "--align", "best"), "There is no alignment best"),
        (("trajectories", "--judge", "transformers:x", "--judge-kind", "disparity"), "up to an offset"),
        (("conditioning", "--judge", "transformers:x", "--judge-kind", "far"), "--judge-kind is depth or disparity"),
        (("trajectories", "--judge", "marigold:x"), "neither scale nor shift"),
        (("conditioning", "--judge", "marigold:x"), "--align is affine-depth or least-square then, not scale"),
    ],
)
def test_mistakes_in_studies_are_sentences(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in " ".join(run("study", *arguments, "--device", "cpu", "-o", tmp_path / "out", code=2).split())
