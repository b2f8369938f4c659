"""The shipped workflows against the node definitions that a real ComfyUI 0.33 gave."""

import json
from pathlib import Path

import pytest
from PIL import Image

from .host import PACK
from .workflow_prompt import NOTES, is_widget, node_inputs, to_prompt

WORKFLOWS = sorted((PACK / "workflows").glob("*.json"))
OBJECT_INFO = json.loads((Path(__file__).parent / "data" / "object_info.json").read_text())


def workflow_id(path: Path) -> str:
    return path.stem


@pytest.fixture(params=WORKFLOWS, ids=workflow_id)
def workflow(request):
    return json.loads(request.param.read_text())


def test_there_is_one_workflow_for_each_task():
    assert [path.stem for path in WORKFLOWS] == [
        "depth_to_image",
        "image_to_depth_to_point_cloud",
        "text_to_rgbd_to_point_cloud",
    ]


def test_links_join_outputs_and_inputs_of_one_type(workflow):
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for link, origin, slot, target, socket, kind in workflow["links"]:
        output = nodes[origin]["outputs"][slot]
        wanted = nodes[target]["inputs"][socket]
        assert link in output["links"]
        assert wanted["link"] == link
        assert kind == output["type"]
        assert kind in wanted["type"].split(",")


def test_every_required_input_has_a_value_within_its_limits(workflow):
    for node in to_prompt(workflow, OBJECT_INFO).values():
        info = OBJECT_INFO[node["class_type"]]
        for name, (kind, options) in node_inputs(info).items():
            if name not in node["inputs"]:
                assert name in info["input"].get("optional", {}), f"{node['class_type']}.{name} is missing"
                continue
            value = node["inputs"][name]
            if not is_widget(kind) or isinstance(value, list):
                continue
            choices = kind if isinstance(kind, list) else options.get("options")
            if choices is not None:
                assert value in choices
            elif kind in ("INT", "FLOAT"):
                assert options["min"] <= value <= options["max"]


def test_workflows_use_this_pack_and_core_only(workflow):
    for node in workflow["nodes"]:
        if node["type"] not in NOTES:
            origin = OBJECT_INFO[node["type"]]["python_module"]
            assert origin == ("custom_nodes" if node["type"].startswith("MF") else origin)
            assert origin in ("nodes", "comfy_extras", "custom_nodes")


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


def test_every_workflow_has_a_thumbnail():
    for path in WORKFLOWS:
        with Image.open(path.with_suffix(".jpg")) as thumbnail:
            assert thumbnail.size == (512, 512)
