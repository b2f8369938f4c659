"""A real ComfyUI with the pack: start-up, the shipped workflows over HTTP, interruption, bad input."""

import json
import re
import shutil
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import zeros

from mforce.mforce_core.video.writer import VideoWriter

from .conftest import FOLDER
from .host import PACK
from .record_object_info import RECORD, pack_nodes, relevant
from .workflow_prompt import named_files, to_prompt

NANO = PACK / "models" / "nano"
WORKFLOWS = sorted(path.stem for path in (PACK / "workflows").glob("*.json"))
#: Those that need files which people download, and those that do not.
INCOMPLETE = [name for name in WORKFLOWS if "Released" in name or "SDXL" in name]
COMPLETE = [name for name in WORKFLOWS if name not in INCOMPLETE]
BUILT_IN, FOREIGN = "nano (built-in)", {"CheckpointLoaderSimple", "ControlNetLoader"}
SIZED = {"MFEmptyLatent", "MFImageToDepthLatent", "MFEncodeDepth", "MFVideoDepth", "MFVideoToDepthVideo"}


@pytest.fixture
def prompt(object_info):
    def read(name):
        return to_prompt(json.loads((PACK / "workflows" / f"{name}.json").read_text()), object_info)

    return read


def node(prompt, kind):
    """Inputs of the only node of a kind."""
    (inputs,) = (entry["inputs"] for entry in prompt.values() if entry["class_type"] == kind)
    return inputs


def outputs_of(entry, prompt, kind):
    return [entry["outputs"][key] for key, value in prompt.items() if value["class_type"] == kind]


def path_of(server, file):
    return server.base / ("temp" if file["type"] == "temp" else "output") / file["subfolder"] / file["filename"]


def saved_images(server, entry, prompt):
    (images,) = (output["images"] for output in outputs_of(entry, prompt, "SaveImage"))
    return [Image.open(path_of(server, image)) for image in images]


def check_point_cloud(path):
    header, _, body = path.read_bytes().partition(b"end_header\n")
    count = int(re.search(rb"element vertex (\d+)", header)[1])
    assert count > 1000
    assert len(body) == count * (3 * 4 + 3)


def check_output(server, kind, output):
    """An output node gave files, and they hold something."""
    if kind == "PreviewPointCloud":
        check_point_cloud(server.base / "temp" / Path(output["result"][0]).name)
        return
    (files,) = (value for name, value in output.items() if name in ("images", "3d"))
    assert files
    for file in files:
        path = path_of(server, file)
        if kind in ("SaveVideo", "MFVideoToDepthVideo"):
            assert path.read_bytes()[4:8] == b"ftyp"
        elif kind == "SaveGLB":
            assert len(trimesh.load(path, force="mesh").faces) > 1000
        else:
            with Image.open(path) as picture:
                low, high = picture.convert("L").getextrema()
                assert low < high


def check_outputs(server, entry, prompt, object_info):
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    for name, value in prompt.items():
        kind = value["class_type"]
        if object_info[kind]["output_node"]:
            check_output(server, kind, entry["outputs"][name])


def shortened(prompt):
    """The same with few steps and frames at nano's size; all points of depth that is not finished then."""
    for value in prompt.values():
        inputs = value["inputs"]
        limits = {"steps": 8, "frames": 4}
        if value["class_type"] in SIZED:
            limits |= {"width": 128, "height": 128}
        inputs.update({name: min(inputs[name], limit) for name, limit in limits.items() if name in inputs})
        if value["class_type"] == "MFToPointCloud":
            inputs["edge_threshold"] = 100.0
    return prompt


def failure(entry):
    """The message of the error that ended a prompt."""
    assert entry["status"]["status_str"] == "error"
    (message,) = (body for kind, body in entry["status"]["messages"] if kind == "execution_error")
    return message["exception_message"].strip()


def test_the_pack_loads_without_a_word_of_complaint(server):
    complaints = [
        line
        for line in server.log_of_start.splitlines()
        if re.search(r"\[(WARNING|ERROR|CRITICAL)\]|Traceback|IMPORT FAILED|Warning:", line)
    ]
    assert not complaints
    assert FOLDER in server.log_of_start


def test_recorded_node_definitions_are_current(object_info):
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    found, recorded = pack_nodes(relevant(object_info)), pack_nodes(recorded)
    assert found.keys() == recorded.keys(), "a node came or went"
    for name, definition in found.items():
        assert definition == recorded[name], "run tests/comfyui/record_object_info.py"


def test_workflows_are_offered_as_templates(server):
    assert sorted(server.get("/workflow_templates")[FOLDER]) == WORKFLOWS


@pytest.mark.parametrize("name", COMPLETE)
def test_workflow_runs(server, object_info, prompt, name):
    text = shortened(prompt(name))
    check_outputs(server, server.wait(server.queue(text)), text, object_info)


@pytest.fixture
def stand_ins(server, prompt):
    """Files under the names that the other workflows want: nano for the released weights, the rest empty."""
    folders = {
        "MFLoadModel": "models/diffusion_models",
        "CLIPLoader": "models/text_encoders",
        "VAELoader": "models/vae",
        "CheckpointLoaderSimple": "models/checkpoints",
        "ControlNetLoader": "models/controlnet",
        "LoadImage": "input",
        "LoadVideo": "input",
    }
    for workflow in INCOMPLETE:
        text = prompt(workflow)
        for name, file in named_files(text).items():
            kind = text[name]["class_type"]
            path = server.base / folders[kind] / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "LoadImage":
                shutil.copy(PACK / "nodes" / "examples" / "cone_and_ball.png", path)
            elif kind == "LoadVideo":
                write_clip(path)
            elif kind == "MFLoadModel":
                config = (NANO / "config.json").read_text()
                save_file(load_file(NANO / "model.safetensors"), path, metadata={"config": config})
            else:
                save_file({"weight": zeros(1)}, path)


def write_clip(path):
    """Two frames: a picture, and the same brighter."""
    with Image.open(PACK / "nodes" / "examples" / "cone_and_ball.png") as picture:
        frame = np.asarray(picture.convert("RGB"))
    with VideoWriter(path, Fraction(12)) as writer:
        writer.write(frame)
        writer.write(np.minimum(frame, 235) + 20)


@pytest.mark.parametrize("name", INCOMPLETE)
def test_workflow_for_larger_models(server, object_info, prompt, stand_ins, name):
    # Whole, it is accepted and fails at nothing but a file that is not the real one.
    whole = prompt(name)
    entry = server.wait(server.queue(whole))
    assert entry["status"]["status_str"] == "error"
    (message,) = (body for kind, body in entry["status"]["messages"] if kind == "execution_error")
    assert message["node_id"] in named_files(whole)

    # With nano's text encoder and autoencoder it runs, up to other models.
    part = with_parts_of_nano(shortened(prompt(name)))
    check_outputs(server, server.wait(server.queue(part)), part, object_info)


def with_parts_of_nano(prompt):
    """The prompt with CLIP and VAE from Load MF Model, without what comes from another checkpoint."""
    parts = {"CLIPLoader": 1, "VAELoader": 2}
    instead = {
        name: ["nano", parts[value["class_type"]]] for name, value in prompt.items() if value["class_type"] in parts
    }
    left_out = {name for name in named_files(prompt) if prompt[name]["class_type"] in FOREIGN} | set(instead)
    changed = {"nano": {"class_type": "MFLoadModel", "inputs": {**node(prompt, "MFLoadModel"), "model_name": BUILT_IN}}}
    for name in sorted(prompt, key=int):
        inputs = {
            key: instead.get(given[0], given) if isinstance(given, list) else given
            for key, given in prompt[name]["inputs"].items()
        }
        if any(isinstance(given, list) and given[0] in left_out for given in inputs.values()):
            left_out.add(name)
        elif name not in left_out:
            changed[name] = {"class_type": prompt[name]["class_type"], "inputs": inputs}
    return changed


def test_the_map_for_controlnet_uses_its_whole_range(server, prompt):
    image = prompt("02 Image to Depth and Point Cloud")
    entry = server.wait(server.queue(image))
    (controlnet,) = saved_images(server, entry, image)
    low, high = controlnet.convert("L").getextrema()
    assert low < 20
    assert high > 235


def test_variations_differ(server, prompt):
    depth = shortened(prompt("03 Depth to Image"))
    first, second = saved_images(server, server.wait(server.queue(depth)), depth)
    assert first.size == (128, 128)
    assert first.tobytes() != second.tobytes()


def test_a_run_can_be_interrupted_and_the_next_one_works(server, prompt):
    endless = prompt("01 Text to Image, Depth and Point Cloud")
    node(endless, "MFSampler")["steps"] = 9999
    before = len(server.log)  # earlier tests run as many steps
    running = server.queue(endless)
    end = time.monotonic() + 300
    while not re.search(r"[1-9]\d*/9999", server.log[before:]):
        assert time.monotonic() < end, server.log[-2000:]
        time.sleep(0.2)
    server.post("/interrupt", {})
    entry = server.wait(running, limit=60)
    assert "execution_interrupted" in [kind for kind, _ in entry["status"]["messages"]]

    short = prompt("02 Image to Depth and Point Cloud")
    node(short, "MFSampler")["steps"] = 2
    node(short, "MFToPointCloud")["edge_threshold"] = 100.0
    assert server.wait(server.queue(short))["status"]["status_str"] == "success"


@pytest.mark.parametrize(
    ("workflow", "kind", "values", "message"),
    [
        ("01 Text to Image, Depth and Point Cloud", "MFEmptyLatent", {"width": 100}, "MF Empty Latent: width 100"),
        (
            "01 Text to Image, Depth and Point Cloud",
            "MFLoadModel",
            {"model_name": "truncated.safetensors"},
            "not a complete .safetensors file",
        ),
        (
            "01 Text to Image, Depth and Point Cloud",
            "MFLoadModel",
            {"model_name": "foreign.safetensors"},
            "img_in.weight",
        ),
        ("02 Image to Depth and Point Cloud", "MFImageToDepthLatent", {"width": 72}, "width 72"),
        ("02 Image to Depth and Point Cloud", "MFSampler", {"mode": "d2i"}, "MF Depth to Image Latent"),
        ("02 Image to Depth and Point Cloud", "MFToPointCloud", {"batch_index": 5}, "batch_index is 5"),
        ("03 Depth to Image", "MFEncodeDepth", {"height": 130}, "height 130"),
    ],
)
def test_bad_input_gets_one_clear_sentence(server, prompt, workflow, kind, values, message):
    wrong = prompt(workflow)
    node(wrong, kind).update(values)
    sampler = node(wrong, "MFSampler")
    sampler["steps"] = 1
    text = failure(server.wait(server.queue(wrong)))
    assert message in text
    assert "\n" not in text
    assert text.endswith(".")
