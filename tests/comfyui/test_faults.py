"""What goes wrong around a running ComfyUI: disks that fill up, folders that go, the server killed, strange locales."""

import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from mforce.benchmarks.comfyui_server import messages
from mforce.benchmarks.soak_prompts import draw
from mforce.mforce_core.depth.files import read_depth

from .conftest import FOLDER
from .host import PACK, Server, find_installation

LIMIT = 300.0
FORMATS = {"png (16-bit)": ".png", "exr": ".exr", "npy": ".npy"}


def saving(source, prefix="depth/fault", format="npy"):
    """A prompt that reads a depth file of the input folder and saves it."""
    load = {"file": source, "meaning": "as the file says", "fov_degrees": 65.0, "exr_channel": "auto"}
    save = {"depth": ["load", 0], "filename_prefix": prefix, "format": format, "values": "depth"}
    rest = {"near": 0.0, "far": 0.0, "exr_channel": "Z", "png_step": 0.0}
    return {
        "load": {"class_type": "MFLoadDepth", "inputs": load},
        "save": {"class_type": "MFSaveDepth", "inputs": {**save, **rest}},
    }


def sampling(prefix, seed=3, steps=2, model="nano (built-in)"):
    """A prompt that makes depth with a model and saves it."""
    nano = {"model_name": "nano (built-in)", "weight_dtype": "default"}
    sampler = {"seed": seed, "mode": "auto", "steps": steps, "cfg": 1.0, "tilt": 0.0, "refine_depth": False}
    more = {"sampler_name": "euler", "scheduler": "released", "i2d_cfg": 1.0}
    text = {"positive": ["text", 0], "negative": ["text", 0]}
    prompt = saving("", prefix)
    del prompt["load"]
    prompt["save"]["inputs"]["depth"] = ["depth", 0]
    return prompt | {
        "nano": {"class_type": "MFLoadModel", "inputs": nano},
        "model": {"class_type": "MFLoadModel", "inputs": {**nano, "model_name": model}},
        "text": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["nano", 1], "text": "a red cube, größer, 深度"}},
        "empty": {"class_type": "MFEmptyLatent", "inputs": {"width": 96, "height": 96, "batch_size": 1}},
        "sampler": {
            "class_type": "MFSampler",
            "inputs": {"model": ["model", 0], "latent": ["empty", 0], **text, **sampler, **more},
        },
        "depth": {"class_type": "MFDepthDetokenize", "inputs": {"depth": ["sampler", 1], "fov_degrees": 65.0}},
    }


def files_of(server, entry):
    """The depth files that a prompt saved."""
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    listed = entry["outputs"]["save"]["depth_files"]
    return [server.base / "output" / file["subfolder"] / file["filename"] for file in listed]


def failure(entry):
    """The message of the error that ended a prompt."""
    (error,) = messages(entry, "execution_error")
    assert error["exception_type"] == "ValueError", error
    return error["exception_message"].strip()


def write_depth_file(server, name, side):
    """Depth that does not compress, in the input folder."""
    values = np.random.default_rng(side).uniform(1, 9, (side, side)).astype(np.float32)
    np.save(server.base / "input" / name, values)
    return values


def test_two_clients_at_once_get_what_each_gets_alone(server):
    def run(seed, client, found):
        entry = server.wait(server.queue(sampling(f"clients/{client}", seed), client), LIMIT)
        found[seed] = np.load(files_of(server, entry)[0])

    alone, together = {}, {}
    seeds = (11, 12, 13, 14)
    for seed in seeds:
        run(seed, "alone", alone)
    threads = [
        threading.Thread(target=lambda mine=mine, name=name: [run(seed, name, together) for seed in mine])
        for name, mine in (("first", seeds[:2]), ("second", seeds[2:]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(together) == list(seeds)
    for seed in seeds:
        np.testing.assert_array_equal(together[seed], alone[seed])


@pytest.fixture
def full_disk(server):
    """A folder in the output folder on a disk of 256 KB of its own."""
    folder = server.base / "output" / "full"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode != 0:
        folder.rmdir()
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_a_sentence_and_leaves_nothing(server, full_disk, format):
    write_depth_file(server, "large.npy", 512)
    small = write_depth_file(server, "small.npy", 64)
    message = failure(server.wait(server.queue(saving("large.npy", "full/depth", format)), LIMIT))
    assert message == f"MF Save Depth: 'depth_00001{FORMATS[format]}' could not be written: no space left on device."
    assert list(full_disk.iterdir()) == []
    (path,) = files_of(server, server.wait(server.queue(saving("small.npy", "full/depth", format)), LIMIT))
    np.testing.assert_allclose(read_depth(path).depth, small, atol=1e-4)


def test_an_output_folder_that_is_removed_while_a_prompt_runs_is_made_again(server):
    steps = 77
    running = server.queue(sampling("removed/depth", steps=steps))
    end = time.monotonic() + LIMIT
    while f"/{steps} [" not in server.log:
        assert time.monotonic() < end, server.log[-2000:]
        time.sleep(0.05)
    for folder in ("output", "temp"):
        shutil.rmtree(server.base / folder)
    (path,) = files_of(server, server.wait(running, LIMIT))
    assert read_depth(path).depth.shape == (96, 96)


def test_an_output_folder_that_cannot_be_written_is_a_sentence(server):
    write_depth_file(server, "small.npy", 64)
    (server.base / "output").mkdir(exist_ok=True)
    (server.base / "output" / "taken").write_text("a file where a folder should be")
    message = failure(server.wait(server.queue(saving("small.npy", "taken/depth")), LIMIT))
    assert message.startswith("MF Save Depth: filename_prefix 'taken/depth' cannot be used: ")
    assert "\n" not in message


def own_server(base, **options):
    """A server that a test may harm."""
    if not (PACK / "models" / "nano" / "model.safetensors").is_file():
        pytest.skip("the built-in model's weights are not in models/nano")
    return Server(find_installation(), base, FOLDER, **options)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_server_that_is_killed_while_it_saves_leaves_no_half_file(tmp_path):
    with own_server(tmp_path) as running:
        running.wait_until_ready()
        write_depth_file(running, "large.npy", 4096)  # takes seconds to compress
        running.queue(saving("large.npy", "killed/depth", "png (16-bit)"))
        folder = tmp_path / "output" / "killed"
        end = time.monotonic() + LIMIT
        while not any(path.stat().st_size for path in folder.glob("*")):
            assert time.monotonic() < end, running.log[-2000:]
            time.sleep(0.001)
        running.process.kill()
        running.process.wait()
    (left,) = folder.iterdir()
    assert left.name.startswith(".")
    with pytest.raises(OSError, match=r"truncated|cannot identify|broken"):
        Image.open(left).load()  # it was killed in the middle


def locale_folder(base):
    """Locales with other decimal signs and letters, compiled for the tests; empty where they cannot be."""
    found = {}
    for name in ("de_DE", "tr_TR"):
        command = ["localedef", "-i", name, "-f", "UTF-8", str(base / f"{name}.UTF-8")]
        if shutil.which("localedef") and subprocess.run(command, capture_output=True).returncode == 0:
            found[name] = {"LC_ALL": f"{name}.UTF-8", "LANG": f"{name}.UTF-8", "LOCPATH": str(base)}
    return found


@pytest.fixture(scope="module", params=["C", "de_DE", "tr_TR"])
def abroad(request, tmp_path_factory):
    """A server in another locale and time zone, whose models can be read only."""
    base = tmp_path_factory.mktemp(request.param)
    environments = {"C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}}
    if request.param != "C":
        environments = locale_folder(tmp_path_factory.mktemp("locales"))
    if request.param not in environments:
        pytest.skip(f"the locale {request.param} cannot be made here")
    models = base / "models" / "diffusion_models"
    models.mkdir(parents=True)
    nano = PACK / "models" / "nano"
    save_file(load_file(nano / "model.safetensors"), models / "copy.safetensors")
    shutil.copy(nano / "config.json", models)
    models.chmod(0o555)
    # Root may write anywhere, unless this right is taken away.
    root = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("setpriv")
    before = ("setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search") if root else ()
    with own_server(base, before=before, environment={**environments[request.param], "TZ": "Pacific/Apia"}) as running:
        running.wait_until_ready()
        yield running
    models.chmod(0o755)


def test_a_model_in_a_folder_that_can_only_be_read_runs_in_any_locale(abroad):
    models = abroad.base / "models" / "diffusion_models"
    before = {path.name: path.stat().st_mtime_ns for path in models.iterdir()}
    entry = abroad.wait(abroad.queue(sampling("abroad/%year%", model="copy.safetensors")), LIMIT)
    (path,) = files_of(abroad, entry)
    assert path.name.startswith("20")
    assert np.isfinite(read_depth(path).depth).any()
    assert {path.name: path.stat().st_mtime_ns for path in models.iterdir()} == before


@pytest.mark.parametrize("format", FORMATS)
def test_numbers_survive_any_locale_time_zone_and_clock(abroad, format):
    values = write_depth_file(abroad, "clock.npy", 64)
    for moment in (-(10**8), 0, 7 * 10**9):  # before 1970, 1970, the year 2191
        os.utime(abroad.base / "input" / "clock.npy", (moment, moment))
        (path,) = files_of(abroad, abroad.wait(abroad.queue(saving("clock.npy", "clock/depth", format)), LIMIT))
        np.testing.assert_allclose(read_depth(path).depth, values, atol=1e-4)


def test_a_piece_of_the_soak(server):
    """Prompts of the soak that need no converted model run as it expects."""
    from mforce.benchmarks.soak import run_prompt

    shutil.rmtree(server.base / "output")
    prompts = [prompt for prompt in (draw(0, number, ()) for number in range(30)) if not prompt.kinds["lora"]][:7]
    assert any(prompt.interrupted for prompt in prompts)
    assert [run_prompt(server, prompt) for prompt in prompts] == [None] * len(prompts)
