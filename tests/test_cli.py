"""The command line on a tiny untrained model: every file of every mode, repeatability, refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

pytest.importorskip("typer")
pytest.importorskip("OpenEXR")

from command_line import run, run_unwrapped
from mforce import Pipeline
from mforce.cli.checkpoint_info import describe_checkpoint
from mforce.kernels import back_end
from mforce.mforce_core.encoders.patch_autoencoder import PatchAutoencoder, save_patch_autoencoder
from mforce.mforce_core.encoders.words import WordTextEncoder
from mforce.mforce_core.model.config import Architecture
from mforce.mforce_core.model.transformer import ModalityForcingTransformer
from mforce.mforce_core.weights.checkpoint import save_model
from tiny_model import TINY

ARCHITECTURE = replace(TINY, in_channels=128, depth_channels=256, context_in_dim=24)
FILES = {
    "rgb.png",
    "depth.npy",
    "depth.exr",
    "depth_16.png",
    "depth_preview.png",
    "cloud.ply",
    "cloud.glb",
    "metadata.json",
    "sheet.png",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A release-like folder with random weights, 32x32 pictures."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    transformer = ModalityForcingTransformer(ARCHITECTURE)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.normal_(0, 0.05)
    # A depth near 1 with some relief: the middle of the codec's range.
    save_model(transformer, folder, dtype=torch.float32)
    config = json.loads((folder / "config.json").read_text()) | {"image_size": 32}
    (folder / "config.json").write_text(json.dumps(config))
    WordTextEncoder.random(["red", "ball"], 24, 4).save(folder / "text_encoder.safetensors")
    save_patch_autoencoder(PatchAutoencoder(), folder / "autoencoder.safetensors")
    return folder


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "picture.png"
    ramp = np.linspace(0, 255, 40 * 24 * 3).reshape(24, 40, 3).astype(np.uint8)
    Image.fromarray(ramp).save(path)
    return path


@pytest.fixture
def depth_file(tmp_path) -> Path:
    path = tmp_path / "depth.npy"
    depth = np.linspace(2, 4, 32 * 32, dtype=np.float32).reshape(32, 32)
    depth[:4, :4] = 0
    np.save(path, depth)
    return path


def refuse(*arguments) -> str:
    """Run a command that must fail as a user error, with one sentence and without a traceback."""
    output = run(*arguments, code=2)
    assert "Traceback" not in output
    message = output.strip()
    assert message.startswith("Error: ")
    assert message.count("\n") == 0
    return message


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def test_joint_writes_files_that_agree_with_each_other(model, tmp_path):
    import OpenEXR
    import trimesh

    out = tmp_path / "out"
    printed = run("joint", "a red ball", "--model", model, "--steps", 2, "--size", "48x32", "-o", out)
    assert str(out / "sheet.png") in printed.replace("\n", "")
    assert {file.name for file in out.iterdir()} == FILES

    rgb = np.asarray(Image.open(out / "rgb.png"))
    depth = np.load(out / "depth.npy")
    assert rgb.shape == (32, 48, 3)
    assert depth.shape == (32, 48)
    assert depth.dtype == np.float32
    with OpenEXR.File(str(out / "depth.exr")) as exr:
        pixels = {name: channel.pixels for name, channel in exr.channels().items()}
    np.testing.assert_array_equal(np.where(pixels["A"] == 1, pixels["Z"], np.nan), depth)

    metadata = json.loads((out / "metadata.json").read_text())
    levels = np.asarray(Image.open(out / "depth_16.png"))
    scale = metadata["depth"]["depth_16.png"]
    known = np.isfinite(depth)
    np.testing.assert_array_equal(levels > 0, known)
    expected = np.clip(depth[known], scale["depth_per_step"], scale["farthest"])
    np.testing.assert_allclose(levels[known] * scale["depth_per_step"], expected, atol=0.51 * scale["depth_per_step"])

    cloud = trimesh.load(out / "cloud.ply")
    assert 0 < len(cloud.vertices) == metadata["cloud"]["points"]
    (glb,) = trimesh.load(out / "cloud.glb").geometry.values()
    np.testing.assert_allclose(glb.vertices, cloud.vertices)
    assert metadata["settings"]["size"] == [48, 32]
    assert metadata["settings"]["dtype"] == "float32"
    assert metadata["model_files"]["model"]["model.safetensors"]["bytes"] > 0


def test_rerun_is_identical_bit_for_bit(model, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run("joint", "ball", "--model", model, "--steps", 2, "--seed", 7, "--refine-depth", "-o", first)
    printed = run("rerun", first / "metadata.json", "-o", second)
    assert "Identical" in printed
    assert contents(first) == contents(second)


def test_rerun_of_what_was_made_from_an_array_says_so(tmp_path):
    made = Pipeline.load("nano", device="cpu").d2i(np.ones((32, 32)), "a red sphere", size=(32, 32), steps=1)
    made.save(tmp_path / "out")
    assert "made from an array in Python" in run_unwrapped("rerun", tmp_path / "out", code=2)


def test_rerun_runs_the_same_kernels_where_it_can(model, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    with back_end("attention=reference"):
        run("joint", "ball", "--model", model, "--steps", 2, "-o", first)
    printed = run("rerun", first, "-o", second)
    assert "promised" not in printed
    assert "Identical" in printed
    kernels = [json.loads((folder / "metadata.json").read_text())["kernels"] for folder in (first, second)]
    assert kernels[0]["launches"] == kernels[1]["launches"]
    assert set(kernels[0]["launches"]["attention"]) == {"reference"}
    assert kernels[0]["versions"]["torch"] == version("torch")


def test_rerun_says_where_equal_bits_are_not_promised(model, tmp_path):
    out = tmp_path / "out"
    with back_end("attention=reference"):
        run("joint", "ball", "--model", model, "--steps", 1, "-o", out)
    metadata = json.loads((out / "metadata.json").read_text())
    elsewhere = metadata | {"device": "Abacus 9000"}
    (out / "metadata.json").write_text(json.dumps(elsewhere))
    printed = " ".join(run("rerun", out, "-o", tmp_path / "a").split())
    assert "Made with device Abacus 9000 (here " in printed
    assert "equal bits are promised for the same device, versions and kernels only" in printed
    again = json.loads((tmp_path / "a" / "metadata.json").read_text())
    assert set(again["kernels"]["launches"]["attention"]) != {"reference"}
    (out / "metadata.json").write_text(json.dumps({key: metadata[key] for key in metadata if key != "kernels"}))
    assert "does not say on what" in " ".join(run("rerun", out, "-o", tmp_path / "b").split())


def test_rerun_of_metadata_that_was_edited_by_hand(model, tmp_path):
    out = tmp_path / "out"
    run("joint", "ball", "--model", model, "--steps", 1, "-o", out)
    metadata = json.loads((out / "metadata.json").read_text())

    def written(**changes):
        (out / "metadata.json").write_text(json.dumps(metadata | changes))
        return "rerun", out, "-o", tmp_path / "again"

    for name in ("input_files", "sha256", "versions", "kernels"):
        assert f"something else than names and values under {name}" in refuse(*written(**{name: ["x"]}))
    kernels = metadata["kernels"]
    assert "under the versions of its kernels" in refuse(*written(kernels=kernels | {"versions": 3}))
    for name in ("pin", "choices"):
        changed = {key: value for key, value in kernels.items() if key != name}
        assert "does not say which ran" in refuse(*written(kernels=changed))
    arguments = written()
    (out / "metadata.json").write_text(json.dumps({key: metadata[key] for key in metadata if key != "sha256"}))
    assert "Different from the original: " in run(*arguments)


def test_another_seed_is_another_result(model, tmp_path):
    for seed in (1, 2):
        run("joint", "ball", "--model", model, "--steps", 1, "--seed", seed, "-o", tmp_path / str(seed))
    assert (tmp_path / "1" / "rgb.png").read_bytes() != (tmp_path / "2" / "rgb.png").read_bytes()


def test_where_no_graph_and_no_compiler_is(model, tmp_path, monkeypatch):
    """A graph is an offer, compiling a demand."""
    common = ("joint", "red ball", "--model", model, "--steps", 1, "--device", "cpu")
    run(*common, "-o", tmp_path / "plain")
    run(*common, "--cuda-graph", "-o", tmp_path / "graph")
    plain, graph = (contents(tmp_path / name) for name in ("plain", "graph"))
    assert json.loads(graph["metadata.json"])["settings"]["cuda_graph"] is True
    assert plain["depth.npy"] == graph["depth.npy"]

    def without_compiler(*_, **__):
        raise RuntimeError("no C++ compiler found\nand much more")

    monkeypatch.setattr(torch, "compile", without_compiler)
    message = refuse(*common, "--compile", "-o", tmp_path / "compiled")
    assert "torch.compile does not work on this machine (no C++ compiler found): leave --compile out." in message


def test_count_gives_each_seed_a_folder_that_can_be_repeated(model, tmp_path):
    out = tmp_path / "out"
    run("joint", "ball", "--model", model, "--steps", 1, "--seed", 3, "--count", 2, "-o", out)
    assert {file.name for file in out.iterdir()} == {"000", "001", "sheet.png"}
    run("joint", "ball", "--model", model, "--steps", 1, "--seed", 4, "-o", tmp_path / "alone")
    assert contents(out / "001") == contents(tmp_path / "alone")


def test_i2d_keeps_the_picture_and_its_shape(model, picture, tmp_path):
    own = tmp_path / "own"
    run("i2d", picture, "--model", model, "--steps", 2, "-o", own)
    np.testing.assert_array_equal(np.asarray(Image.open(own / "rgb.png")), np.asarray(Image.open(picture)))
    assert np.load(own / "depth.npy").shape == (24, 40)

    out = tmp_path / "out"
    printed = run("i2d", picture, "--model", model, "--steps", 2, "--working-size", "-o", out)
    assert "letterboxed to 32x32" in " ".join(printed.split())
    rgb = Image.open(out / "rgb.png")
    assert rgb.size == (32, 19)
    assert np.load(out / "depth.npy").shape == (19, 32)
    expected = Image.open(picture).resize((32, 19), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(np.asarray(rgb), np.asarray(expected))
    run("rerun", out, "-o", tmp_path / "again")
    assert contents(out) == contents(tmp_path / "again")


def test_d2i_returns_the_given_depth(model, depth_file, tmp_path):
    out = tmp_path / "out"
    run("d2i", depth_file, "red ball", "--model", model, "--steps", 2, "-o", out)
    given, kept = np.load(depth_file), np.load(out / "depth.npy")
    np.testing.assert_array_equal(np.isnan(kept), given == 0)
    np.testing.assert_array_equal(kept[given > 0], given[given > 0])
    # What mforce writes it reads: the same picture from the same depth in its other two forms.
    for name in ("depth.exr", "depth_16.png"):
        again = tmp_path / name.replace(".", "_")
        run("d2i", out / name, "red ball", "--model", model, "--steps", 2, "-o", again)
        pixels = [np.asarray(Image.open(folder / "rgb.png")).astype(int) for folder in (out, again)]
        assert np.abs(pixels[0] - pixels[1]).max() <= 2


def test_rerun_refuses_a_changed_input(model, depth_file, tmp_path):
    out = tmp_path / "out"
    run("d2i", depth_file, "ball", "--model", model, "--steps", 1, "-o", out)
    moved = depth_file.rename(tmp_path / "moved.npy")
    assert "is gone" in refuse("rerun", out, "-o", tmp_path / "b")
    assert "Identical" in run("rerun", out, "--input", moved, "-o", tmp_path / "c")
    np.save(moved, np.ones((32, 32)))
    assert "not the one" in refuse("rerun", out, "--input", moved, "-o", tmp_path / "d")


def test_demo_runs_all_modes(model, tmp_path):
    printed = run("demo", "--model", model, "--steps", 1, "-o", tmp_path / "demo")
    assert printed.count("sheet.png") == 3
    assert len(list((tmp_path / "demo").glob("**/metadata.json"))) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", 0], "--steps must be at least 1"),
        (["--count", 0], "--count must be at least 1"),
        (["--size", "40x32"], "multiples of 16. Use --size 32x32"),
        (["--size", "big"], "must look like 512x384"),
        (["--cfg", "nan"], "--cfg must be a finite number"),
        (["--tilt", 99], "--tilt must lie between"),
        (["--fov", 180], "--fov must be between"),
        (["--seed", -1], "--seed must be"),
        (["--device", "abacus"], "'abacus' cannot be used"),
        (["--dtype", "float16"], "--dtype must be"),
        (["--model", "nowhere"], "does not exist: give nano, nano-fast, a release folder"),
        (["--vae", "nowhere"], "nowhere, given with --vae, does not exist"),
    ],
)
def test_impossible_settings_are_refused_and_leave_nothing(model, tmp_path, arguments, message):
    out = tmp_path / "deep" / "out"
    assert message in refuse("joint", "ball", "--model", model, "-o", out, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_missing_parts_name_their_option(model, tmp_path):
    lone = tmp_path / "lone.safetensors"
    lone.write_bytes((model / "model.safetensors").read_bytes())
    assert "--text-encoder" in refuse("joint", "ball", "--model", lone)
    words = model / "text_encoder.safetensors"
    assert "--vae" in refuse("joint", "ball", "--model", lone, "--text-encoder", words)
    picture = tmp_path / "picture.png"
    Image.new("RGB", (4, 4)).save(picture)
    assert "not a .safetensors file but a PNG picture" in refuse("joint", "ball", "--model", picture)


def test_a_truncated_checkpoint_is_refused(model, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    whole = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert "not a complete .safetensors file" in refuse("joint", "ball", "--model", broken, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_inputs_are_checked_before_the_model_is_loaded(model, tmp_path):
    missing = refuse("i2d", tmp_path / "none.png", "--model", model, "-o", tmp_path / "out")
    assert "does not exist" in missing
    np.save(tmp_path / "empty.npy", np.zeros((32, 32)))
    empty = refuse("d2i", tmp_path / "empty.npy", "ball", "--model", model, "-o", tmp_path / "out")
    assert "no pixel with a depth" in empty
    assert not (tmp_path / "out").exists()


def test_an_unwritable_output_is_refused_first(model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in refuse("joint", "ball", "--model", model, "-o", tmp_path / "file" / "out")
    assert "is a file" in refuse("joint", "ball", "--model", model, "-o", tmp_path / "file")


def test_a_missing_library_is_named_before_sampling(model, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "mforce.mforce_core.results.writing.find_spec", lambda name: None if name == "OpenEXR" else name
    )
    message = refuse("joint", "ball", "--model", model, "-o", tmp_path / "out")
    assert "pip install OpenEXR" in message
    assert list(tmp_path.iterdir()) == []


def test_unknown_words_are_named(model, tmp_path):
    printed = run("joint", "a red zebra", "--model", model, "--steps", 1, "-o", tmp_path / "out")
    assert "does not know: a, zebra" in printed


def test_a_prompt_that_is_cut_is_said(model, tmp_path):
    for words, said in ((4, False), (5, True)):
        printed = run("joint", "ball " * words, "--model", model, "--steps", 1, "-o", tmp_path / str(words))
        assert ("The prompt has 5 words and the small model reads the first 4" in " ".join(printed.split())) == said


def test_internal_errors_say_how_to_see_more(model, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise TypeError("a bug")

    monkeypatch.setattr("mforce.mforce_core.batch.sample", fail)
    arguments = ["joint", "ball", "--model", model, "-o", tmp_path / "out"]
    assert "--debug" in run(*arguments, code=1)
    assert "Traceback" in run(*arguments, "--debug", code=1)
    assert list(tmp_path.iterdir()) == []


def test_info_describes_without_problems(model):
    printed = run("info", model)
    assert "No problems found" in printed
    found = json.loads(run("info", model, "--json"))
    assert found["architecture"]["hidden_size"] == 32
    assert found["parameters"] == sum(p.numel() for p in ModalityForcingTransformer(ARCHITECTURE).parameters())
    assert found["problems"] == []


def test_info_lists_problems_and_fails(model, tmp_path):
    from safetensors.torch import load_file

    tensors = load_file(model / "model.safetensors")
    del tensors["dit.depth_in.weight"]
    tensors["dit.extra"] = torch.zeros(1)
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    save_file(tensors, tmp_path / "model.safetensors")
    printed = run("info", tmp_path, code=1)
    assert "1 missing" in printed
    assert "1 unexpected" in printed
    assert "no tensor is called" in refuse("info", model / "autoencoder.safetensors")


def test_info_knows_the_published_sizes(tmp_path, monkeypatch):
    """The 12 B release described from names and shapes alone, as read from a header."""
    from mforce.cli import checkpoint_info
    from mforce.mforce_core.model.config import ModelConfig
    from mforce.mforce_core.weights.header import CheckpointHeader
    from mforce.mforce_core.weights.layouts import Source

    with torch.device("meta"):
        release = ModalityForcingTransformer(Architecture())
    shapes = {name: tuple(tensor.shape) for name, tensor in release.state_dict().items()}
    sources = {name: Source(((tmp_path, f"dit.{name}"),)) for name in shapes}
    header = CheckpointHeader("dit.", shapes, dict.fromkeys(shapes, "BF16"), sources, (), ModelConfig())
    monkeypatch.setattr(checkpoint_info, "read_header", lambda path: header)
    found = describe_checkpoint(tmp_path)
    assert found.parameters == 11_986_285_570
    assert found.tensors == 279
    assert found.variant == "flux_rgbd_9b_v2"
    assert "NC" in found.license


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "mforce", *map(str, arguments)]


def test_help_does_not_import_torch():
    code = "import sys, mforce.cli.app; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_eval_prints_and_writes_its_numbers(model, tmp_path):
    file = tmp_path / "numbers.json"
    printed = run("eval", "--model", model, "--scenes", 1, "--steps", 1, "--json", file)
    numbers = json.loads(file.read_text())
    assert numbers["scenes"] == 1
    assert {
        "i2d_absrel",
        "constant_absrel",
        "joint_absrel",
        "d2i_absrel",
        "color_accuracy",
    } <= numbers.keys()
    assert all(name in printed for name in numbers if name != "intervals")
    assert numbers["intervals"].keys() == {name for name, value in numbers.items() if isinstance(value, float)}
    assert all(low <= numbers[name] <= high for name, (low, high) in numbers["intervals"].items())
    assert "The folder of" in refuse("eval", "--model", model, "--json", tmp_path / "no" / "numbers.json")


def test_eval_takes_the_parts_of_a_model_from_elsewhere(model, tmp_path):
    alone = tmp_path / "model"
    alone.mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copy(Path(model) / name, alone / name)
    files = [tmp_path / "together.json", tmp_path / "apart.json"]
    few = ("--scenes", 1, "--steps", 1, "--json")
    run("eval", "--model", model, *few, files[0])
    run("eval", "--model", alone, "--text-encoder", model, "--vae", model, *few, files[1])
    assert json.loads(files[0].read_text()) == json.loads(files[1].read_text())
    assert "text_encoder.safetensors" in refuse("eval", "--model", alone, "--text-encoder", alone, "--vae", model)


def test_study_names_its_studies_and_its_mistakes(tmp_path):
    assert "scaling" in refuse("study", tmp_path / "nothing.toml")
    assert "optimzer" in refuse("study", "scaling", "--set", "optimzer.name=adamw")
    assert "w64-4800-default" in refuse("study", "scaling", "--only", "w1-*")


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_leaves_nothing_behind(model, tmp_path):
    process = subprocess.Popen(
        command("joint", "ball", "--model", model, "--steps", 10000, "-o", tmp_path / "a" / "out"),
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A test run in the background of a shell inherits that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # The model is loaded once the temporary folder has stood for a moment.
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("a/.out.part-*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "Canceled" in messages
    assert "Traceback" not in messages
    assert list(tmp_path.iterdir()) == []
