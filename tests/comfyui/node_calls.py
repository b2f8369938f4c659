"""Calling nodes as a workflow does, with their widgets' defaults; imported by scripts that ComfyUI's Python runs."""

from typing import Any


def defaults(node: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a node: what is given, and the defaults of the others that have one."""
    inputs = [entry for entry in node.define_schema().inputs if getattr(entry, "default", None) is not None]
    return {**{entry.id: entry.default for entry in inputs}, **given}


def run(node: Any, **given: Any) -> Any:
    """What a node gives out."""
    return node.execute(**defaults(node, given)).args


def message(node: Any, **given: Any) -> str:
    """What a node says when it refuses, or nothing."""
    try:
        run(node, **given)
    except ValueError as problem:
        return str(problem)
    return ""
