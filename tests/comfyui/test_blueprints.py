"""The blueprints: what ComfyUI serves, what the frontend expects of them, and that each runs as one node."""

import json
from pathlib import Path

import pytest

from .host import PACK, find_installation
from .record_object_info import RECORD
from .test_server import check_outputs, shortened
from .workflow_prompt import all_nodes, flattened, node_inputs, subgraphs_of, to_prompt
from .write_blueprints import ALIASES, BLUEPRINTS, WORKFLOWS, files

FILES = sorted(BLUEPRINTS.glob("*.json"))
NODES = json.loads(RECORD.read_text(encoding="utf-8"))
HERE = Path(__file__).parent
OLD = sorted((PACK / "tests" / "comfyui" / "data" / "workflows_0_2").glob("*.json"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def blueprint(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def test_files_are_as_they_are_drawn():
    drawn = files()
    assert {path for path in drawn if path.parent == BLUEPRINTS} == set(FILES)
    for path, value in drawn.items():
        assert json.loads(path.read_text(encoding="utf-8")) == value, f"{path.name}: run write_blueprints.py"


@pytest.mark.parametrize("path", sorted([*FILES, *WORKFLOWS.glob("*.json")]), ids=lambda path: path.stem)
def test_no_number_of_a_node_is_given_twice(path):
    """The frontend numbers such nodes anew, and warns of each in the console of the browser."""
    drawn = json.loads(path.read_text(encoding="utf-8"))
    numbers = [node["id"] for node in drawn["nodes"]]
    numbers += [node["id"] for one in subgraphs_of(drawn).values() for node in one["nodes"]]
    assert len(numbers) == len(set(numbers))
    assert drawn["last_node_id"] >= max(numbers)


def test_a_blueprint_is_one_node_and_its_definition(blueprint):
    (node,) = blueprint["nodes"]
    (definition,) = subgraphs_of(blueprint).values()
    assert node["type"] == definition["id"]
    assert node["title"] == definition["name"]
    assert [one["name"] for one in node["inputs"]] == [one["name"] for one in definition["inputs"]]
    assert [one["name"] for one in node["outputs"]] == [one["name"] for one in definition["outputs"]]
    assert blueprint["extra"]["BlueprintDescription"] == definition["description"]
    assert blueprint["extra"]["BlueprintSearchAliases"] == ALIASES[definition["name"]]
    assert "modality forcing" in ALIASES[definition["name"]]


def test_links_within_join_one_type_and_are_noted_at_both_ends(blueprint):
    (definition,) = subgraphs_of(blueprint).values()
    nodes = {node["id"]: node for node in definition["nodes"]}
    for link in definition["links"]:
        if link["target_id"] == -20:
            output = definition["outputs"][link["target_slot"]]
            assert link["id"] in output["linkIds"]
            assert link["type"] == output["type"]
        else:
            socket = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert socket["link"] == link["id"]
            assert set(link["type"].split(",")) & set(socket["type"].split(","))
        if link["origin_id"] == -10:
            given = definition["inputs"][link["origin_slot"]]
            assert link["id"] in given["linkIds"]
        else:
            output = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert link["id"] in output["links"]
            assert link["type"] == output["type"]


def test_nodes_within_hold_the_inputs_of_their_definitions(blueprint):
    for node in all_nodes(blueprint):
        assert [one["name"] for one in node["inputs"]] == list(node_inputs(NODES[node["type"]]))
        assert [one["name"] for one in node["outputs"]] == NODES[node["type"]]["output_name"]


def test_a_blueprint_shows_what_it_makes(blueprint):
    assert any(node["type"] == "PreviewImage" for node in all_nodes(blueprint))


def test_comfyui_serves_them(server):
    listed = server.get("/global_subgraphs")
    mine = {entry["name"]: name for name, entry in listed.items() if entry["source"] == "custom_node"}
    assert sorted(mine) == [path.stem for path in FILES]
    for path in FILES:
        assert listed[mine[path.stem]]["info"]["search_aliases"] == ALIASES[path.stem]
        served = server.get(f"/global_subgraphs/{mine[path.stem]}")
        assert json.loads(served["data"]) == json.loads(path.read_text(encoding="utf-8"))


def test_a_file_without_search_words_leaves_the_list_as_it_is(tmp_path):
    for name, extra in {"ours": {"BlueprintSearchAliases": ["depth"]}, "bare": {}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"nodes": [], "extra": extra}))
    (tmp_path / "own.json").write_text(json.dumps({"nodes": []}))
    found = json.loads(find_installation().run(HERE / "blueprint_alias_runs.py", PACK, tmp_path))
    assert found == {"ours": {"search_aliases": ["depth"]}, "bare": {}, "own": {}}


SOURCES = {"image": ["scene", 0], "depth": ["scene", 1], "mask": ["mask", 0], "valid": ["mask", 0]}


def test_each_runs(server, object_info, blueprint):
    prompt = shortened(to_prompt(blueprint, object_info))
    prompt["scene"] = {"class_type": "MFExampleScene", "inputs": {"scene": "cone_and_ball"}}
    prompt["mask"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 128, "height": 128}}
    (host,) = blueprint["nodes"]
    (definition,) = subgraphs_of(blueprint).values()
    for given in definition["inputs"]:
        for link in definition["links"]:
            if link["id"] in given["linkIds"] and given["name"] in SOURCES:
                inner = next(node for node in definition["nodes"] if node["id"] == link["target_id"])
                socket = inner["inputs"][link["target_slot"]]["name"]
                prompt[f"{host['id']}:{inner['id']}"]["inputs"][socket] = SOURCES[given["name"]]
    check_outputs(server, server.wait(server.queue(prompt)), prompt, object_info)


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_workflows_that_0_2_saved_still_run(server, object_info, path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    assert flattened(workflow)["nodes"] == workflow["nodes"]
    prompt = shortened(to_prompt(workflow, object_info))
    check_outputs(server, server.wait(server.queue(prompt)), prompt, object_info)
