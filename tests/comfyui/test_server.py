"""A real ComfyUI with the pack: start-up, the shipped workflows over HTTP, interruption, bad input."""

import json
import re
import time
from pathlib import Path

import pytest
from PIL import Image

from .conftest import FOLDER
from .host import PACK
from .record_object_info import RECORD, relevant
from .workflow_prompt import to_prompt


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


def saved_images(server, entry, prompt):
    (images,) = (output["images"] for output in outputs_of(entry, prompt, "SaveImage"))
    return [Image.open(server.base / "output" / image["subfolder"] / image["filename"]) for image in images]


def check_point_cloud(server, entry, prompt):
    (output,) = outputs_of(entry, prompt, "PreviewPointCloud")
    ply = (server.base / "temp" / Path(output["result"][0]).name).read_bytes()
    header, _, body = ply.partition(b"end_header\n")
    count = int(re.search(rb"element vertex (\d+)", header)[1])
    assert count > 1000
    assert len(body) == count * (3 * 4 + 3)


def failure(entry):
    """The message of the error that ended a prompt."""
    assert entry["status"]["status_str"] == "error"
    (message,) = (body for kind, body in entry["status"]["messages"] if kind == "execution_error")
    return message["exception_message"].strip()


def test_the_pack_loads_without_a_word_of_complaint(server):
    complaints = [
        line
        for line in server.log.splitlines()
        if re.search(r"\[(WARNING|ERROR|CRITICAL)\]|Traceback|IMPORT FAILED|Warning:", line)
    ]
    assert not complaints
    assert FOLDER in server.log


def test_recorded_node_definitions_are_current(object_info):
    found = relevant(object_info)
    recorded = json.loads(RECORD.read_text())
    for name in (name for name in found if name.startswith("MF")):
        assert found[name] == recorded[name], "run tests/comfyui/record_object_info.py"


def test_workflows_are_offered_as_templates(server):
    templates = server.get("/workflow_templates")
    assert sorted(templates[FOLDER]) == [
        "depth_to_image",
        "image_to_depth_to_point_cloud",
        "text_to_rgbd_to_point_cloud",
    ]


def test_text_to_rgbd_to_point_cloud(server, prompt):
    text = prompt("text_to_rgbd_to_point_cloud")
    entry = server.wait(server.queue(text))
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    (image,) = saved_images(server, entry, text)
    assert image.size == (128, 128)
    check_point_cloud(server, entry, text)


def test_image_to_depth_to_point_cloud(server, prompt):
    image = prompt("image_to_depth_to_point_cloud")
    entry = server.wait(server.queue(image))
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    (controlnet,) = saved_images(server, entry, image)
    low, high = controlnet.convert("L").getextrema()
    assert low < 20
    assert high > 235
    check_point_cloud(server, entry, image)


def test_depth_to_image(server, prompt):
    depth = prompt("depth_to_image")
    entry = server.wait(server.queue(depth))
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    images = saved_images(server, entry, depth)
    assert len(images) == 2
    assert images[0].tobytes() != images[1].tobytes()


def test_a_run_can_be_interrupted_and_the_next_one_works(server, prompt):
    endless = prompt("text_to_rgbd_to_point_cloud")
    node(endless, "MFSampler")["steps"] = 9999
    running = server.queue(endless)
    end = time.monotonic() + 300
    while not re.search(r"[1-9]\d*/9999", server.log):
        assert time.monotonic() < end, server.log[-2000:]
        time.sleep(0.2)
    server.post("/interrupt", {})
    entry = server.wait(running, limit=60)
    assert "execution_interrupted" in [kind for kind, _ in entry["status"]["messages"]]

    short = prompt("image_to_depth_to_point_cloud")
    node(short, "MFSampler")["steps"] = 2
    node(short, "MFToPointCloud")["edge_threshold"] = 100.0
    assert server.wait(server.queue(short))["status"]["status_str"] == "success"


@pytest.mark.parametrize(
    ("workflow", "kind", "values", "message"),
    [
        ("text_to_rgbd_to_point_cloud", "MFEmptyLatent", {"width": 100}, "MF Empty Latent: width 100"),
        (
            "text_to_rgbd_to_point_cloud",
            "MFLoadModel",
            {"model_name": "truncated.safetensors"},
            "not a complete .safetensors file",
        ),
        (
            "text_to_rgbd_to_point_cloud",
            "MFLoadModel",
            {"model_name": "foreign.safetensors"},
            "img_in.weight",
        ),
        ("image_to_depth_to_point_cloud", "MFImageToDepthLatent", {"width": 72}, "width 72"),
        ("image_to_depth_to_point_cloud", "MFSampler", {"mode": "d2i"}, "MF Depth to Image Latent"),
        ("image_to_depth_to_point_cloud", "MFToPointCloud", {"batch_index": 5}, "batch_index is 5"),
        ("depth_to_image", "MFEncodeDepth", {"height": 130}, "height 130"),
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
