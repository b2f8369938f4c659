"""mforce i2d for many pictures: names, bad files, going on after a stop, several processes, more depth files."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("typer")
pytest.importorskip("OpenEXR")
pytest.importorskip("trimesh")

from command_line import run_unwrapped as run
from mforce.cli import many
from mforce.cli.picture_list import find_pictures
from mforce.mforce_core.depth.files import read_depth
from mforce.mforce_core.pipeline import Pipeline

OPTIONS = ("--steps", "1", "--size", "64x64", "--device", "cpu")
SIZES = {"a.jpg": (40, 64), "b.png": (100, 60), "deep/a.png": (33, 77), "deep/er/c.webp": (64, 64)}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four pictures of other shapes, two files that are none, and what is not looked at."""
    random = np.random.default_rng(0)
    for name, size in SIZES.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    (tmp_path / "in" / "bad.png").write_bytes(b"no picture")
    whole = (tmp_path / "in" / "b.png").read_bytes()
    (tmp_path / "in" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "notes.txt").write_text("no picture either")
    (tmp_path / "in" / ".hidden.png").write_bytes(b"")
    return tmp_path / "in"


def results(out: Path) -> dict[str, str]:
    rows = json.loads((out / "results.json").read_text())["results"]
    return {name: row["status"] for name, row in rows.items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_names_are_told_apart(folder):
    found = find_pictures([str(folder), str(folder / "a.jpg"), str(folder / "deep" / "*.png"), str(folder / "b.png")])
    assert list(found) == ["a", "b", "bad", "cut", "deep-a", "deep-er-c"]
    assert list(find_pictures([str(folder / "a.jpg"), str(folder / "deep" / "a.png")])) == ["a", "a-2"]
    assert list(find_pictures([str(folder / "nowhere.png")])) == ["nowhere"]
    with pytest.raises(ValueError, match="No picture matches"):
        find_pictures([str(folder / "*.bmp")])
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="no pictures in the folder"):
        find_pictures([str(folder / "empty")])


def test_bad_files_are_listed_and_the_others_done_at_their_own_size(folder, tmp_path):
    out = tmp_path / "out"
    printed = run("i2d", folder, *OPTIONS, "-o", out, code=1)
    assert "4 of 6 pictures done, 2 failed." in printed
    assert results(out) == {
        **dict.fromkeys(("a", "b", "deep-a", "deep-er-c"), "done"),
        **dict.fromkeys(("bad", "cut"), "failed"),
    }
    rows = json.loads((out / "results.json").read_text())["results"]
    assert "bad.png is not an image" in rows["bad"]["reason"]
    assert "cut.png cannot be decoded" in rows["cut"]["reason"]
    assert printed.count("Failed: ") == 2
    assert printed.count("is unlike the rendered scenes") == 1  # noise, all four of them
    assert "a: This picture is unlike" in printed
    assert all("is unlike the rendered scenes" in (out / name / "metadata.json").read_text() for name in ("a", "b"))
    assert {path.name for path in out.iterdir()} == {"a", "b", "deep-a", "deep-er-c", "results.json"}
    for name, source in (("a", "a.jpg"), ("b", "b.png"), ("deep-a", "deep/a.png"), ("deep-er-c", "deep/er/c.webp")):
        depth = np.load(out / name / "depth.npy")
        assert depth.shape == SIZES[source]
        assert np.isfinite(depth).mean() > 0.5
        given = np.asarray(Image.open(folder / source).convert("RGB"))
        assert np.array_equal(np.asarray(Image.open(out / name / "rgb.png")), given)

    # A picture gives the same alone, and can be made again.
    run("i2d", folder / "b.png", *OPTIONS, "-o", tmp_path / "alone")
    assert contents(tmp_path / "alone") == contents(out / "b")
    assert "Identical" in run("rerun", out / "b", "-o", tmp_path / "again")


def test_a_stopped_run_goes_on_without_doing_anything_twice(folder, tmp_path, monkeypatch):
    out, made = tmp_path / "out", []
    generate = Pipeline.generate

    def stop_at_the_third(self, jobs, *rest):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(jobs[0].input)
        return generate(self, jobs, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "generate", stop_at_the_third)
        assert "Canceled" in run("i2d", folder, *OPTIONS, "-o", out, code=130)
    assert results(out)["deep-a"] == "waiting"
    (out / ".deep-a.part-left").mkdir()  # as a killed process leaves it
    before = contents(out)

    with monkeypatch.context() as patch:
        made.clear()
        patch.setattr(
            Pipeline, "generate", lambda self, jobs, *rest: made.append(jobs[0].input) or generate(self, jobs, *rest)
        )
        assert "2 of 6 pictures done, 2 kept from before, 2 failed." in run("i2d", folder, *OPTIONS, "-o", out, code=1)
    assert made == [str(folder / "deep" / "a.png"), str(folder / "deep" / "er" / "c.webp")]
    after = contents(out)
    assert all(after[name] == data for name, data in before.items() if name != "results.json")
    assert not list(out.glob(".*"))

    # With nothing left to do the model is not loaded.
    with monkeypatch.context() as patch:
        patch.setattr(many, "Pipeline", None)
        assert "4 kept from before" in run("i2d", folder, *OPTIONS, "-o", out, code=1)


def test_results_of_other_settings_or_pictures_are_not_kept(folder, tmp_path):
    out, picture = tmp_path / "out", folder / "b.png"
    arguments = ("i2d", folder / "a.jpg", picture, *OPTIONS, "-o", out)
    run(*arguments)
    assert "other settings or of another picture: add --overwrite" in run(*arguments, "--seed", 1, code=1)
    Image.new("RGB", (30, 40)).save(picture)
    assert "1 kept from before, 1 failed" in run(*arguments, code=1)
    run(*arguments, "--overwrite")
    assert np.load(out / "b" / "depth.npy").shape == (40, 30)
    (out / "b" / "depth.npy").unlink()
    assert "something else than a whole result" in run(*arguments, code=1)


def test_folders_of_others_and_counts_are_refused(folder, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    assert "files of something else" in run("i2d", folder, *OPTIONS, "-o", tmp_path / "thesis", code=2)
    assert "--count goes with one picture" in run("i2d", folder, *OPTIONS, "--count", 2, code=2)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter"]


def test_two_processes_give_what_one_gives(folder, tmp_path):
    run("i2d", folder, *OPTIONS, "-o", tmp_path / "one", code=1)
    run("i2d", folder, *OPTIONS[:-1], "cpu,cpu", "-o", tmp_path / "two", code=1)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_actors_are_told_their_threads(folder, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(many, "map_items", lambda _, arguments, jobs, **options: told.append(arguments[0]) or iter(()))
    run("i2d", folder, *OPTIONS, "--ray", 2, "-o", tmp_path / "out")
    assert [run.settings.threads for run in told] == [1]


@pytest.fixture
def one_thread():
    """As Ray gives an actor, and as results note it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("ray_of_two_processes", "one_thread")
def test_ray_gives_what_one_process_gives_and_goes_on(folder, tmp_path):
    run("i2d", folder, *OPTIONS, "-o", tmp_path / "one", code=1)
    arguments = ("i2d", folder, *OPTIONS, "--ray", 2, "-o", tmp_path / "ray")
    assert "4 of 6 pictures done, 2 failed." in run(*arguments, code=1)
    assert contents(tmp_path / "one") == contents(tmp_path / "ray")
    (tmp_path / "ray" / "b" / "depth.npy").unlink()
    assert "3 kept from before, 3 failed" in run(*arguments, code=1)
    # An actor cannot be made, which Ray would try again and again.
    message = run("i2d", folder, *OPTIONS[:-1], "abacus", "--ray", 2, "-o", tmp_path / "out", code=2)
    assert "'abacus' cannot be used" in message
    message = run("i2d", folder, *OPTIONS[:-1], "cpu,cpu", "--ray", 2, "-o", tmp_path / "out", code=2)
    assert "--device names one device of every actor" in message


def test_a_fault_in_a_process_is_a_sentence(folder, tmp_path):
    message = run("i2d", folder, *OPTIONS[:-1], "cpu,abacus", "-o", tmp_path / "out", code=2)
    assert "'abacus' cannot be used" in message


def test_more_depth_files_hold_the_same_depth(folder, tmp_path):
    out = tmp_path / "out"
    run("i2d", folder / "b.png", *OPTIONS, "-o", out, "--also", "npz,pfm,tiff,tiff16")
    depth = np.load(out / "depth.npy")
    for name in ("depth.npz", "depth.pfm", "depth.tiff"):
        np.testing.assert_array_equal(read_depth(out / name).depth, depth, err_msg=name)
    with np.load(out / "depth.npz") as arrays:
        assert np.array_equal(arrays["mask"], np.isfinite(depth))
        metadata = json.loads((out / "metadata.json").read_text())
        assert arrays["intrinsics"].tolist() == metadata["cloud"]["normalized_intrinsics"]
    levels = [np.asarray(Image.open(out / f"depth_16.{ending}")) for ending in ("png", "tiff")]
    assert np.array_equal(*levels)
    assert "must be of npz, pfm, tiff, tiff16" in run("i2d", folder / "b.png", *OPTIONS, "--also", "mat", code=2)
