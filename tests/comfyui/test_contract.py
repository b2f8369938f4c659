"""What saved workflows rely on, frozen at version 0.2: ids, inputs and their order, types, defaults, limits, options.

``data/contract_0_2.json`` was taken from the node definitions that 0.2 gave in a real ComfyUI and is never written
again. Nodes, inputs and options may be added; new inputs and outputs go last, because workflows store their values by
position. Of the lists of core's samplers and schedulers only the entries that our defaults name are frozen.
"""

import json
from pathlib import Path

import pytest

from .record_object_info import RECORD
from .workflow_prompt import node_inputs

CONTRACT = json.loads((Path(__file__).parent / "data" / "contract_0_2.json").read_text(encoding="utf-8"))
NODES = json.loads(RECORD.read_text(encoding="utf-8"))

#: Defaults that nodes put on the canvas anew have instead; saved workflows hold values of their own.
NEW_DEFAULTS = {("MFImageToDepthLatent", "fit"): "keep aspect", ("MFEncodeDepth", "fit"): "keep aspect"}


def without_texts(value):
    """A definition without what it says to people."""
    if isinstance(value, dict):
        return {key: without_texts(part) for key, part in value.items() if key != "tooltip"}
    return [without_texts(part) for part in value] if isinstance(value, list) else value


def widened(found, frozen):
    """A template with the types that it took before, where it still takes them."""
    types = frozen.get("allowed_types")
    if types is None or not set(types.split(",")) <= set(found["allowed_types"].split(",")):
        return found
    return found | {"allowed_types": types}


@pytest.mark.parametrize("node", CONTRACT)
def test_a_node_keeps_what_saved_workflows_rely_on(node):
    frozen, inputs = CONTRACT[node], node_inputs(NODES[node])
    assert list(inputs)[: len(frozen["inputs"])] == list(frozen["inputs"])
    outputs = list(zip(*(NODES[node][key] for key in ("output_name", "output", "output_is_list")), strict=True))
    assert [list(output) for output in outputs[: len(frozen["outputs"])]] == frozen["outputs"]
    assert NODES[node]["output_node"] == frozen["output_node"]


@pytest.mark.parametrize(
    ("node", "name"), [(node, name) for node, frozen in CONTRACT.items() for name in frozen["inputs"]]
)
def test_an_input_keeps_its_type_default_limits_and_options(node, name):
    group, kind, frozen = CONTRACT[node]["inputs"][name]
    found_kind, found = node_inputs(NODES[node])[name]
    # A socket may take more types than it did.
    assert set(kind.split(",")) <= set(found_kind.split(","))
    assert found["optional"] == (group == "optional")
    for key, value in frozen.items():
        if key == "options":
            assert [option for option in found["options"] if option in value] == value
        elif key == "template":
            assert without_texts(widened(found[key], value)) == without_texts(value)
        elif key == "default":
            assert found[key] == NEW_DEFAULTS.get((node, name), value)
        else:
            assert found[key] == value, key


def test_every_input_that_is_new_is_optional():
    for node, frozen in CONTRACT.items():
        for name, (_, options) in node_inputs(NODES[node]).items():
            assert name in frozen["inputs"] or options["optional"], f"{node}.{name}"
