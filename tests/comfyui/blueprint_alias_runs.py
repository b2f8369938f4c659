"""Run by ComfyUI's Python: what the list of blueprints says of files in a folder, as JSON.

Usage: blueprint_alias_runs.py PACK_ROOT FOLDER
"""

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace

from pack_loading import load_pack


def main(root: Path, folder: Path) -> None:
    load_pack(root)
    from pack_under_test.nodes.host import blueprint_aliases
    from server import PromptServer

    async def listed(*_):
        return {path.stem: {"path": str(path), "info": {}} for path in folder.glob("*.json")}

    manager = SimpleNamespace(get_custom_node_subgraphs=listed)
    PromptServer.instance = SimpleNamespace(subgraph_manager=manager)
    blueprint_aliases._BLUEPRINTS = folder.resolve()
    blueprint_aliases.add_blueprint_aliases()
    found = asyncio.run(manager.get_custom_node_subgraphs())
    print(json.dumps({name: entry["info"] for name, entry in found.items()}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
