"""Search words of the pack's blueprints, in the list of blueprints that the server gives to the page.

The page takes them from there alone; ComfyUI lists names, and leaves the words in the files.

Relies on: ``PromptServer.subgraph_manager`` and its ``get_custom_node_subgraphs``, whose entries have a ``path`` and an
``info``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from server import PromptServer

_BLUEPRINTS = Path(__file__).resolve().parents[2] / "subgraphs"


def add_blueprint_aliases() -> None:
    """Let the list carry ``search_aliases`` for this pack's blueprints, unless ComfyUI gives them itself."""
    manager: Any = getattr(getattr(PromptServer, "instance", None), "subgraph_manager", None)
    # Not there: a script with ComfyUI's modules and no server, or a ComfyUI that lists blueprints in another way.
    if not hasattr(manager, "get_custom_node_subgraphs"):
        return
    listed = manager.get_custom_node_subgraphs

    async def with_aliases(*args: Any, **kwargs: Any) -> dict[str, Any]:
        entries = await listed(*args, **kwargs)
        for entry in entries.values():
            path = Path(entry["path"])
            if "search_aliases" not in entry["info"] and path.parent.resolve() == _BLUEPRINTS:
                # A file of a user's own beside them may lack the words, and must not take the list down with it.
                extra = json.loads(path.read_text(encoding="utf-8")).get("extra", {})
                if words := extra.get("BlueprintSearchAliases"):
                    entry["info"]["search_aliases"] = words
        return dict(entries)

    manager.get_custom_node_subgraphs = with_aliases
