"""Record the definitions of the nodes that the workflows use, and of the pack's own, from a running ComfyUI.

Usage: record_object_info.py http://127.0.0.1:8188
"""

import json
import sys
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKFLOWS = HERE.parents[1] / "workflows"
RECORD = HERE / "data" / "object_info.json"


def relevant(object_info: dict) -> dict:
    """Definitions of the pack's nodes and the workflows' others, without the names of local files."""
    used = {node["type"] for path in WORKFLOWS.glob("*.json") for node in json.loads(path.read_text())["nodes"]}
    kept = {name: info for name, info in object_info.items() if name in used or name.startswith("MF")}
    for info in kept.values():
        info["python_module"] = info["python_module"].partition(".")[0]
    names = kept["MFLoadModel"]["input"]["required"]["model_name"][1]
    names["options"] = names["options"][:1]
    return dict(sorted(kept.items()))


if __name__ == "__main__":
    with urllib.request.urlopen(sys.argv[1] + "/object_info") as answer:
        definitions = relevant(json.load(answer))
    RECORD.write_text(json.dumps(definitions, indent=1) + "\n", encoding="utf-8")
