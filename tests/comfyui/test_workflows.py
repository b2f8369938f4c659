"""The shipped workflows against the node definitions that a real ComfyUI 0.33 gave."""

import json
import math
from pathlib import Path

import pytest
from PIL import Image

from .drawing import TITLE, least_size
from .host import PACK
from .workflow_prompt import (
    FILE_INPUTS,
    NOTES,
    all_nodes,
    flattened,
    is_widget,
    named_files,
    node_inputs,
    read_node,
    subgraphs_of,
    to_prompt,
)

WORKFLOWS = sorted((PACK / "workflows").glob("*.json"))
OBJECT_INFO = json.loads((Path(__file__).parent / "data" / "object_info.json").read_text())


def workflow_id(path: Path) -> str:
    return path.stem


@pytest.fixture(params=WORKFLOWS, ids=workflow_id)
def workflow(request):
    return json.loads(request.param.read_text())


def nodes_of(workflow):
    """The nodes that run, those within subgraphs among them."""
    return [node for node in flattened(workflow)["nodes"] if node["type"] not in NOTES]


def text_of(workflow):
    (note,) = (node for node in workflow["nodes"] if node["type"] == "MarkdownNote")
    return note["widgets_values"][0]


def test_links_join_outputs_and_inputs_of_one_type(workflow):
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for link, origin, slot, target, socket, kind in workflow["links"]:
        output = nodes[origin]["outputs"][slot]
        wanted = nodes[target]["inputs"][socket]
        assert link in output["links"]
        assert wanted["link"] == link
        assert kind == output["type"]
        assert kind in wanted["type"].split(",")


def test_no_node_lies_on_another(workflow):
    boxes = []
    for node in workflow["nodes"]:
        width, height = least_size(node, OBJECT_INFO[node["type"]]) if node["type"] in OBJECT_INFO else node["size"]
        left, top = node["pos"]
        boxes.append((node["id"], left, top - TITLE, left + width, top + height))
    for one, *a in boxes:
        for other, *b in boxes:
            apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
            assert one == other or apart, f"nodes {one} and {other}"


def test_every_required_input_has_a_value_within_its_limits(workflow):
    prompt = to_prompt(workflow, OBJECT_INFO)
    for node in nodes_of(workflow):
        inputs, _ = read_node(node, OBJECT_INFO[node["type"]])
        given = prompt[str(node["id"])]["inputs"]
        for name, (kind, options) in inputs.items():
            label = f"{node['type']}.{name}"
            if name not in given:
                assert options["optional"], f"{label} is missing"
                continue
            value = given[name]
            if not is_widget(kind, options) or isinstance(value, list):
                continue
            choices = kind if isinstance(kind, list) else options.get("options")
            if str(node["id"]) in named_files(prompt) and name == FILE_INPUTS[node["type"]]:
                continue
            if choices is not None:
                assert value in [choice["key"] if isinstance(choice, dict) else choice for choice in choices], label
            elif kind in ("INT", "FLOAT"):
                assert options["min"] <= value <= options["max"], label


def test_a_number_is_shown_with_all_its_decimals(workflow):
    """The frontend shows as many as the widget's step has."""
    for node in nodes_of(workflow):
        inputs, read = read_node(node, OBJECT_INFO[node["type"]])
        for name, (kind, options) in inputs.items():
            if kind == "FLOAT" and not isinstance(value := read.get(name, 0), list):
                assert round(value, max(-math.floor(math.log10(options["step"])), 0)) == value, f"{node['type']}.{name}"


def test_sockets_are_those_of_the_definitions(workflow):
    for node in nodes_of(workflow):
        info = OBJECT_INFO[node["type"]]
        inputs, _ = read_node(node, info)
        # An upload button and a 3D view are sockets of the frontend's own.
        extra = {socket["name"] for socket in node["inputs"]} - set(inputs)
        assert extra <= {"upload", "image"}, node["type"]
        assert [socket["name"] for socket in node["outputs"]] == info["output_name"]
        for socket, kind in zip(node["outputs"], info["output"], strict=True):
            assert socket["type"] == kind or kind == "COMFY_MATCHTYPE_V3"


def test_a_note_says_what_it_does_and_names_every_file(workflow):
    text = text_of(workflow)
    assert text.startswith("## ")
    files = named_files(to_prompt(workflow, OBJECT_INFO)).values()
    for file in files:
        # ComfyUI comes with the picture.
        assert Path(file).stem in text or file == "example.png"
    assert ("nothing to download" in text.lower()) == (not files)


def test_a_viewer_whose_camera_is_used_can_be_aimed(workflow):
    """What is connected to a viewer's camera_info replaces the camera that is aimed in it."""
    viewers = []
    for node in all_nodes(workflow):
        given = {socket["name"]: socket["link"] for socket in node.get("inputs", [])}
        cameras = (socket for socket in node.get("outputs", []) if socket["type"] == "LOAD3D_CAMERA")
        if "viewport_state" in given and any(socket["links"] for socket in cameras):
            assert given["camera_info"] is None
            # The frontend restores a saved camera together with a file; else it stands far away in the first run.
            assert node["properties"]["Camera Config"]["state"]
            assert node["properties"]["Last Time Model File"]
            viewers.append(node)
    assert bool(viewers) == ("aim in the viewer" in text_of(workflow).lower())


def test_workflows_use_this_pack_and_core_only(workflow):
    for node in all_nodes(workflow):
        if node["type"] not in NOTES:
            origin = OBJECT_INFO[node["type"]]["python_module"]
            assert origin == ("custom_nodes" if node["type"].startswith("MF") else origin)
            assert origin in ("nodes", "comfy_extras", "custom_nodes")


def test_links_run_from_left_to_right(workflow):
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for _, origin, _, target, _, _ in workflow["links"]:
        assert nodes[origin]["pos"][0] <= nodes[target]["pos"][0]


def test_groups_hold_their_nodes_whole(workflow):
    assert workflow["groups"] or subgraphs_of(workflow)  # a blueprint needs no frame around it
    for node in nodes_of(workflow) if workflow["groups"] else []:
        (x, y), (width, height) = node["pos"], node["size"]
        homes = [
            group["title"]
            for left, top, wide, high, group in ((*group["bounding"], group) for group in workflow["groups"])
            if left <= x and top <= y and x + width <= left + wide and y + height <= top + high
        ]
        assert len(homes) == 1, node["type"]


def test_nodes_do_not_overlap(workflow):
    title_bar = 30
    boxes = [(*node["pos"], *node["size"]) for node in workflow["nodes"]]
    for index, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, other_width, other_height in boxes[index + 1 :]:
            apart = x + width <= other_x or other_x + other_width <= x
            apart |= y + height <= other_y - title_bar or other_y + other_height <= y - title_bar
            assert apart


def test_every_input_of_the_pack_explains_itself():
    pack = [info for name, info in OBJECT_INFO.items() if name.startswith("MF")]
    assert len(pack) >= 10
    for info in pack:
        assert info["description"]
        assert info["search_aliases"]
        assert all(info["output_tooltips"])
        for name, (_, options) in node_inputs(info).items():
            assert options.get("tooltip"), f"{info['name']}.{name} has no tooltip"


@pytest.mark.parametrize(
    "phrase",
    ["flux depth", "flux 2", "turntable", "stereo", "3d photo", "metric depth", "video depth", "depth estimation"],
)
def test_the_search_finds_a_node_by_what_people_type(phrase):
    assert any(phrase in info["search_aliases"] for name, info in OBJECT_INFO.items() if name.startswith("MF"))


def test_every_workflow_has_a_thumbnail():
    for path in WORKFLOWS:
        with Image.open(path.with_suffix(".jpg")) as thumbnail:
            assert thumbnail.size == (512, 512)
