"""Drawing workflows and subgraphs in the form in which the frontend saves them, from the definitions of the nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from .workflow_prompt import is_widget, node_inputs

COLUMN, GAP, TITLE = 380, 30, 30
_ROW, _WIDGET, _TEXT = 22, 26, 110
#: The type of an output that has that of an input.
_MATCHED = "COMFY_MATCHTYPE_V3"
#: Sizes of nodes that show something.
_VIEWS = {"PreviewImage": (280, 290), "SaveImage": (280, 320), "PreviewPointCloud": (560, 620)}
#: Pixels that the pictures of these nodes take below their widgets.
_PICTURES = {"MFSaveDepth": 190, "MFSaveLayers": 190, "MFSampler": 150, "MFPath": 190, "MFVideoToDepthVideo": 190}


def identifier(*names: str) -> str:
    """The same UUID for the same names, so that a drawing made again differs in nothing."""
    return str(uuid5(NAMESPACE_URL, "modality-forcing/" + "/".join(names)))


@dataclass
class Given:
    """An input of a subgraph: a socket, or with a value a widget that is shown on the outside."""

    name: str
    value: Any = None
    kind: str = ""
    links: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Slot:
    """An output of a node."""

    node: dict[str, Any]
    index: int


class Made:
    """A node that was drawn; ``[name]`` is one of its outputs."""

    def __init__(self, node: dict[str, Any]) -> None:
        self.node = node

    def __getitem__(self, name: str) -> Slot:
        return Slot(self.node, [one["name"] for one in self.node["outputs"]].index(name))


class Drawing:
    """Nodes in columns, from left to right, and the links between them.

    ``first`` is the number of the first node: those inside a subgraph may not be those of the workflow around it.
    """

    def __init__(self, definitions: dict[str, Any], first: int = 1) -> None:
        self.definitions, self._first = definitions, first
        self.nodes: list[dict[str, Any]] = []
        self.links: list[dict[str, Any]] = []
        self._bottom: dict[int, float] = {}

    def add(self, kind: str, column: int, *, title: str | None = None, **inputs: Any) -> Made:
        """A node of ComfyUI; an input is a value, a `Slot`, or a `Given` of the subgraph."""
        info = self.definitions[kind]
        sockets, values, lines, matched = [], [], 0, None
        node: dict[str, Any] = {"id": self._next, "type": kind}
        known = node_inputs(info)
        assert inputs.keys() <= known.keys(), (kind, inputs.keys() - known.keys())
        for name, (type_, options) in known.items():
            given, link = inputs.get(name), None
            shown = is_widget(type_, options)
            type_ = "COMBO" if isinstance(type_, list) else type_
            if type_ == _MATCHED and isinstance(given, Slot):
                type_ = matched = given.node["outputs"][given.index]["type"]
            if isinstance(given, Slot | Given):
                link = self._link(given, node["id"], len(sockets), type_)
            sockets.append({"name": name, "type": type_, "link": link})
            if shown:
                sockets[-1]["widget"] = {"name": name}
                value = given.value if isinstance(given, Given) else None if isinstance(given, Slot) else given
                values.append(_default(kind, type_, options) if value is None else value)
                lines += 5 if options.get("multiline") else 1
                if options.get("control_after_generate"):
                    values.append("fixed")
                    lines += 1
        bare = sum("widget" not in socket for socket in sockets)
        rows = _ROW * max(bare, len(info["output"]), 1) + _WIDGET * lines
        width, height = _VIEWS.get(kind, (300, 16 + rows + _PICTURES.get(kind, 0)))
        outputs = [
            {"name": name, "type": matched if type_ == _MATCHED else type_, "links": []}
            for name, type_ in zip(info["output_name"], info["output"], strict=True)
        ]
        source = "comfyui-modality-forcing" if kind.startswith("MF") else "comfy-core"
        properties = {"cnr_id": source, "Node name for S&R": kind}
        if kind == "PreviewPointCloud":
            properties["Scene Config"] = {"showGrid": False, "backgroundColor": "#383838", "backgroundImage": ""}
        node |= {"pos": self._place(column, width, height), "size": [width, height], "inputs": sockets}
        node |= {"outputs": outputs, "title": title or info["display_name"], "properties": properties}
        return self._put(node, values)

    def note(self, text: str, height: int) -> Made:
        """A note in the first column."""
        node = {"id": self._next, "type": "MarkdownNote", "pos": self._place(0, 340, height)}
        node |= {"size": [340, height], "inputs": [], "outputs": [], "title": "Note", "properties": {}}
        return self._put(node | {"color": "#432", "bgcolor": "#653"}, [text])

    def stand_in(self, subgraph: dict[str, Any], column: int, **inputs: Slot) -> Made:
        """The node that stands for a subgraph, whose pictures the modern renderer shows and makes room for."""
        node: dict[str, Any] = {"id": self._next, "type": subgraph["id"]}
        sockets = []
        for one in subgraph["inputs"]:
            given = inputs.get(one["name"])
            link = None if given is None else self._link(given, node["id"], len(sockets), one["type"])
            shown = one["name"] in subgraph["extra"]["widgets"]
            widget = {"widget": {"name": one["name"]}} if shown else {}
            sockets.append({"name": one["name"], "type": one["type"], "link": link, **widget})
        outputs = [{"name": one["name"], "type": one["type"], "links": []} for one in subgraph["outputs"]]
        bare = sum("widget" not in socket for socket in sockets)
        height = 16 + _ROW * max(bare, len(outputs)) + _WIDGET * (len(sockets) - bare) + 80
        node |= {"pos": self._place(column, 340, height), "size": [340, height], "inputs": sockets}
        node |= {"outputs": outputs, "title": subgraph["name"]}
        previews = [one["id"] for one in subgraph["nodes"] if one["type"] == "PreviewImage"]
        properties = {"proxyWidgets": [[str(one), "$$canvas-image-preview"] for one in previews]}
        return self._put(node | {"properties": properties | {"cnr_id": "comfyui-modality-forcing"}}, [])

    @property
    def _next(self) -> int:
        return self._first + len(self.nodes)

    def _place(self, column: int, width: int, height: int) -> list[float]:
        top = self._bottom.get(column, 0)
        self._bottom[column] = top + height + TITLE + GAP
        return [COLUMN * column, top]

    def _put(self, node: dict[str, Any], values: list[Any]) -> Made:
        node |= {"flags": {}, "order": len(self.nodes), "mode": 0, "widgets_values": values}
        self.nodes.append(node)
        return Made(node)

    def _link(self, given: Slot | Given, target: int, slot: int, kind: str) -> int:
        number = len(self.links) + 1
        link = {"id": number, "target_id": target, "target_slot": slot}
        if isinstance(given, Given):
            given.kind = given.kind or kind
            given.links.append(number)
            origin = {"origin_id": -10, "origin_slot": given}  # its place is known at the end
        else:
            output = given.node["outputs"][given.index]
            output["links"].append(number)
            origin, kind = {"origin_id": given.node["id"], "origin_slot": given.index}, output["type"]
        self.links.append({**link, **origin, "type": kind})
        return number


def least_size(node: dict[str, Any], info: dict[str, Any]) -> tuple[float, float]:
    """Width and height that the classic renderer gives a saved node at least: of its title, sockets and widgets."""
    known = node_inputs(info)
    shown = [options for type_, options in known.values() if is_widget(type_, options)]
    lines = len(shown) + sum(bool(options.get("control_after_generate")) for options in shown)
    texts = sum(bool(options.get("multiline")) for options in shown)
    height = 6 + 20 * max(len(known) - len(shown), len(info["output"])) + 24 * lines + 30 * texts
    title = node.get("title") or info["display_name"]
    width, saved = node["size"]
    return max(width, 40 + 7 * len(title)), max(saved, height + _PICTURES.get(node["type"], 0))


def _default(node: str, kind: str, options: dict[str, Any]) -> Any:
    if "default" in options:
        return options["default"]
    choices = options.get("options")
    return choices[0] if choices else "" if kind in ("STRING", "LOAD_3D") else None


def subgraph(
    name: str, description: str, category: str, drawn: Drawing, inputs: list[Given], outputs: dict[str, Slot]
) -> dict[str, Any]:
    """The definition of a subgraph from what was drawn inside."""
    for slot, (_, given) in enumerate(outputs.items()):
        number = len(drawn.links) + 1
        output = given.node["outputs"][given.index]
        output["links"].append(number)
        link = {"id": number, "origin_id": given.node["id"], "origin_slot": given.index}
        drawn.links.append({**link, "target_id": -20, "target_slot": slot, "type": output["type"]})
    for link in drawn.links:
        if isinstance(link["origin_slot"], Given):
            link["origin_slot"] = inputs.index(link["origin_slot"])
    right = max(node["pos"][0] + node["size"][0] for node in drawn.nodes) + 80
    state = {"lastGroupId": 0, "lastNodeId": drawn.nodes[-1]["id"], "lastLinkId": len(drawn.links), "lastRerouteId": 0}
    return {
        "id": identifier(name),
        "version": 1,
        "state": state,
        "revision": 0,
        "config": {},
        "name": name,
        "description": description,
        "category": category,
        "inputNode": {"id": -10, "bounding": [-240, 0, 160, 40 + 20 * len(inputs)]},
        "outputNode": {"id": -20, "bounding": [right, 0, 140, 40 + 20 * len(outputs)]},
        "inputs": [
            {
                "id": identifier(name, "input", one.name),
                "name": one.name,
                "type": one.kind,
                "linkIds": one.links,
                "pos": [-100, 20 + 20 * row],
            }
            for row, one in enumerate(inputs)
        ],
        "outputs": [
            {
                "id": identifier(name, "output", key),
                "name": key,
                "type": given.node["outputs"][given.index]["type"],
                "linkIds": [drawn.links[len(drawn.links) - len(outputs) + row]["id"]],
                "pos": [right + 20, 20 + 20 * row],
            }
            for row, (key, given) in enumerate(outputs.items())
        ],
        "widgets": [],
        "nodes": drawn.nodes,
        "groups": [],
        "links": drawn.links,
        "extra": {"widgets": [one.name for one in inputs if one.value is not None]},
    }


def workflow(name: str, drawn: Drawing, subgraphs: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
    """What is drawn, as a file."""
    inside = [subgraph["nodes"] for subgraph in subgraphs]
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return {
        "id": identifier("workflow", name),
        "revision": 0,
        "last_node_id": max(node["id"] for graph in (drawn.nodes, *inside) for node in graph),
        "last_link_id": len(drawn.links),
        "nodes": drawn.nodes,
        "links": [[link[key] for key in keys] for link in drawn.links],
        "groups": [],
        "definitions": {"subgraphs": subgraphs},
        "config": {},
        "extra": extra,
        "version": 0.4,
    }
