"""Building API prompts node by node, and reading what a finished one left."""

from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from .host import Server
from .workflow_prompt import is_widget, node_inputs

#: How often each kind of node ran in a prompt that succeeded, over all tests.
EXECUTED: Counter[str] = Counter()


class Graph:
    """An API prompt; ``add`` returns a node whose ``[slot]`` is a link to one of its outputs.

    Widgets that are not given have their defaults, as in the frontend.
    """

    def __init__(self, object_info: dict[str, Any]) -> None:
        self.object_info = object_info
        self.prompt: dict[str, Any] = {}

    def add(self, kind: str, **inputs: Any) -> "Node":
        known = node_inputs(self.object_info[kind]).keys()
        unknown = [name for name in inputs if name.partition(".")[0] not in known]
        assert not unknown, f"{kind} has no {', '.join(unknown)}"  # ComfyUI itself would not mind
        name = f"{len(self.prompt) + 1} {kind}"
        self.prompt[name] = {"class_type": kind, "inputs": {**self._defaults(kind), **inputs}}
        return Node(name)

    def _defaults(self, kind: str) -> dict[str, Any]:
        values = {}
        for name, (type_, options) in node_inputs(self.object_info[kind]).items():
            choices = type_ if isinstance(type_, list) else options.get("options")
            if "default" in options:
                values[name] = options["default"]
            elif is_widget(type_) and choices:
                values[name] = choices[0]
        return values

    def run(self, server: Server) -> "Outcome":
        """Execute it; fails the test unless it succeeds."""
        entry = server.wait(server.queue(self.prompt))
        problems = [
            body["exception_message"] for kind, body in entry["status"]["messages"] if kind == "execution_error"
        ]
        assert entry["status"]["status_str"] == "success", problems
        inputs = [value for node in self.prompt.values() for value in node["inputs"].values()]
        consumed = {value[0] for value in inputs if isinstance(value, list)}
        ran = (node["class_type"] for name, node in self.prompt.items() if name in consumed | entry["outputs"].keys())
        EXECUTED.update(ran)
        return Outcome(server, entry)


class Node:
    def __init__(self, name: str) -> None:
        self.name = name

    def __getitem__(self, slot: int) -> list[Any]:
        return [self.name, slot]


class Outcome:
    """History entry of a finished prompt."""

    def __init__(self, server: Server, entry: dict[str, Any]) -> None:
        self.server, self.entry = server, entry

    @property
    def cached(self) -> set[str]:
        """Names of the nodes that did not have to run again."""
        messages = dict(self.entry["status"]["messages"])
        return set(messages["execution_cached"]["nodes"])

    def files(self, node: Node, kind: str = "images") -> list[Path]:
        """Paths of the files that an output node reports."""
        folders = {"output": self.server.base / "output", "temp": self.server.base / "temp"}
        listed = self.entry["outputs"][node.name][kind]
        return [folders[file["type"]] / file["subfolder"] / file["filename"] for file in listed]

    def image(self, node: Node) -> Image.Image:
        (path,) = self.files(node)
        return Image.open(path)
