"""Turn a workflow as people save it (UI format) into the prompt that ComfyUI's HTTP API takes.

Follows what the frontend does: widget values are listed in the order of the node's widgets, integer widgets
called ``seed`` are followed by a control widget, a choice that brings widgets of its own is followed by those, links
and not values fill the sockets, notes are left out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

Inputs = dict[str, tuple[Any, dict[str, Any]]]

NOTES = {"Note", "MarkdownNote"}
AUTOGROW, DYNAMIC_COMBO = "COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3"
#: The ids that a subgraph's own inputs and outputs have among its nodes.
_INPUTS, _OUTPUTS = -10, -20
_CONTROLLED = {"seed", "noise_seed"}
_VALUE_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR", "LOAD_3D", DYNAMIC_COMBO}
# Widgets that the frontend adds to a node: a 3D view, and an upload button, whose value stays out of prompts.
_ADDED = {"SaveGLB": ["image"], "LoadImage": [None], "LoadVideo": [None]}

#: Inputs that name a file on the user's disk. A workflow may name one that people download or bring.
FILE_INPUTS = {
    "MFLoadModel": "model_name",
    "CLIPLoader": "clip_name",
    "VAELoader": "vae_name",
    "CheckpointLoaderSimple": "ckpt_name",
    "ControlNetLoader": "control_net_name",
    "LoadImage": "image",
    "LoadVideo": "file",
}


def node_inputs(info: dict[str, Any]) -> Inputs:
    """Inputs of a node by name, in the order of the frontend: (type, options)."""
    return _in_order(info["input"], info["input_order"])


def _in_order(groups: dict[str, Any], order: dict[str, list[str]] | None = None) -> Inputs:
    inputs = {}
    for kind in ("required", "optional"):
        for name in groups.get(kind, {}) if order is None else order.get(kind, []):
            spec = groups[kind][name]
            inputs[name] = (spec[0], {**(spec[1] if len(spec) > 1 else {}), "optional": kind == "optional"})
    return inputs


def is_widget(kind: Any, options: dict[str, Any] | None = None) -> bool:
    """Whether an input is shown with a value to set: some take links of several types besides."""
    return isinstance(kind, list) or kind in _VALUE_TYPES or "widgetType" in (options or {})


def _read_widgets(inputs: Inputs, values: Iterator[Any], prefix: str = "") -> tuple[Inputs, dict[str, Any]]:
    """The inputs with those that chosen options bring, and the values of widgets, by the names that prompts have."""
    shown: Inputs = {}
    read: dict[str, Any] = {}
    for name, (kind, options) in inputs.items():
        name = prefix + name
        shown[name] = (kind, options)
        if not is_widget(kind, options):
            continue
        try:
            read[name] = next(values)
        except StopIteration:
            # A workflow that was saved before the widget was added; the frontend gives it its default.
            if not options["optional"] or "default" not in options:
                raise
            read[name] = options["default"]
        if kind == DYNAMIC_COMBO:
            (chosen,) = (option for option in options["options"] if option["key"] == read[name])
            more = _read_widgets(_in_order(chosen["inputs"]), values, f"{name}.")
            shown.update(more[0])
            read.update(more[1])
        if options.get("control_after_generate") or (kind == "INT" and name in _CONTROLLED):
            next(values)
    return shown, read


def _grown(inputs: Inputs, connected: set[str]) -> Inputs:
    """The inputs with each growing group replaced by its members: those that must be and those that are connected."""
    members: Inputs = {}
    for name, (kind, options) in inputs.items():
        if kind != AUTOGROW:
            members[name] = (kind, options)
            continue
        template = options["template"]
        ((_, (member, details)),) = template["input"]["required"].items()
        names = template.get("names") or [f"{template['prefix']}{index}" for index in range(template["max"])]
        for index, own in enumerate(names):
            path = f"{name}.{own}"
            if index < template["min"] or path in connected:
                members[path] = (member, {**details, "optional": index >= template["min"]})
    return members


def read_node(node: dict[str, Any], info: dict[str, Any]) -> tuple[Inputs, dict[str, Any]]:
    """Every input that a node of a UI workflow has, and the values of its widgets.

    Raises:
        ValueError: the number of widget values is not the number of widgets.
    """
    given = node.get("widgets_values") or []
    values = iter(given)
    try:
        inputs, read = _read_widgets(node_inputs(info), values)
    except StopIteration as end:
        raise ValueError(f"{node['type']} {node['id']} has too few widget values: {given}") from end
    for name, value in zip(_ADDED.get(node["type"], []), values, strict=False):
        if name is not None:
            read[name] = value
    if rest := list(values):
        raise ValueError(f"{node['type']} {node['id']} has widget values without a widget: {rest}")
    connected = {socket["name"] for socket in node.get("inputs", []) if socket.get("link") is not None}
    return _grown(inputs, connected), read


def subgraphs_of(workflow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The definitions of subgraphs in a workflow, by the type that their nodes have."""
    return {one["id"]: one for one in workflow.get("definitions", {}).get("subgraphs", [])}


def all_nodes(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes of a workflow and within its subgraphs, without those that stand for a subgraph."""
    known = subgraphs_of(workflow)
    nodes = [*workflow["nodes"], *(node for one in known.values() for node in one["nodes"])]
    return [node for node in nodes if node["type"] not in known]


def flattened(workflow: dict[str, Any]) -> dict[str, Any]:
    """The workflow with what is in its subgraphs in place of the nodes that stand for them, as the frontend sends it.

    A node of a subgraph is called "7:3", for node 3 within node 7. Subgraphs do not nest here.
    """
    known = subgraphs_of(workflow)
    hosts = {node["id"]: node for node in workflow["nodes"] if node["type"] in known}
    nodes = [{**node, "inputs": [dict(one) for one in node.get("inputs", [])]} for node in workflow["nodes"]]
    origins = {link[0]: (link[1], link[2]) for link in workflow["links"]}
    given: dict[Any, Any] = {}  # (host, slot of its output): what gives it
    for host, outside in hosts.items():
        subgraph = known[outside["type"]]
        names = [one["name"] for one in subgraph["inputs"]]
        outer = {one["name"]: one.get("link") for one in outside["inputs"]}
        inner = {link["id"]: link for link in subgraph["links"]}
        for node in subgraph["nodes"]:
            inputs = []
            for socket in node["inputs"]:
                link = inner.get(socket.get("link"))
                if link is None:
                    inputs.append({**socket, "link": None})
                elif link["origin_id"] == _INPUTS:
                    inputs.append({**socket, "link": outer.get(names[link["origin_slot"]])})
                else:
                    name = ("inner", host, link["id"])
                    origins[name] = (f"{host}:{link['origin_id']}", link["origin_slot"])
                    inputs.append({**socket, "link": name})
            nodes.append({**node, "id": f"{host}:{node['id']}", "inputs": inputs})
        for link in subgraph["links"]:
            if link["target_id"] == _OUTPUTS:
                given[host, link["target_slot"]] = (f"{host}:{link['origin_id']}", link["origin_slot"])
    links = [[name, *given.get(origin, origin)] for name, origin in origins.items()]
    return {"nodes": [node for node in nodes if node["id"] not in hosts], "links": links}


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """The API prompt of a UI workflow.

    Raises:
        ValueError: the number of widget values of a node is not the number of its widgets.
    """
    workflow = flattened(workflow)
    links = {link[0]: link for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        _, inputs = read_node(node, object_info[node["type"]])
        for socket in node.get("inputs", []):
            if socket.get("link") is not None:
                _, origin, slot, *_ = links[socket["link"]]
                inputs[socket["name"]] = [str(origin), slot]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def named_files(prompt: dict[str, Any]) -> dict[str, str]:
    """The files that a prompt wants from the user, by the node that loads them."""
    loaders = {name: node for name, node in prompt.items() if node["class_type"] in FILE_INPUTS}
    chosen = {name: node["inputs"][FILE_INPUTS[node["class_type"]]] for name, node in loaders.items()}
    return {name: file for name, file in chosen.items() if Path(file).suffix}
