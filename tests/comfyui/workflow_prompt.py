"""Turn a workflow as people save it (UI format) into the prompt that ComfyUI's HTTP API takes.

Follows what the frontend does: widget values are listed in the order of the node's widgets, integer widgets
called ``seed`` are followed by a control widget, links and not values fill the sockets, notes are left out.
"""

from typing import Any

NOTES = {"Note", "MarkdownNote"}
_CONTROLLED = {"seed", "noise_seed"}
_VALUE_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "LOAD_3D"}


def node_inputs(info: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Inputs of a node by name, in the order of the frontend: (type, options)."""
    inputs = {}
    for kind in ("required", "optional"):
        for name in info["input_order"].get(kind, []):
            spec = info["input"][kind][name]
            inputs[name] = (spec[0], spec[1] if len(spec) > 1 else {})
    return inputs


def is_widget(kind: Any) -> bool:
    return isinstance(kind, list) or kind in _VALUE_TYPES


def widget_names(info: dict[str, Any]) -> list[str | None]:
    """Names of the values in a node's ``widgets_values``; None is a control that the server never sees."""
    names: list[str | None] = []
    for name, (kind, options) in node_inputs(info).items():
        if not is_widget(kind):
            continue
        names.append(name)
        if options.get("control_after_generate") or (kind == "INT" and name in _CONTROLLED):
            names.append(None)
    return names


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """The API prompt of a UI workflow.

    Raises:
        ValueError: the number of widget values of a node is not the number of its widgets.
    """
    links = {link[0]: link for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        names = widget_names(object_info[node["type"]])
        values = node.get("widgets_values", [])
        if len(values) != len(names):
            raise ValueError(f"{node['type']} {node['id']} has {len(values)} widget values for {names}")
        inputs = {name: value for name, value in zip(names, values, strict=True) if name is not None}
        for socket in node.get("inputs", []):
            if socket.get("link") is not None:
                _, origin, slot, *_ = links[socket["link"]]
                inputs[socket["name"]] = [str(origin), slot]
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt
