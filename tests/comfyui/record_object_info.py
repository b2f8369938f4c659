"""Record the definitions of the nodes that the workflows use, and of the pack's own, from a running ComfyUI.

Writes tests/comfyui/data/object_info.json and, from it, the English texts of the nodes, locales/en/nodeDefs.json.

Usage: record_object_info.py http://127.0.0.1:8188
"""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PACK = HERE.parents[1]
WORKFLOWS = PACK / "workflows"
RECORD = HERE / "data" / "object_info.json"
ENGLISH = PACK / "locales" / "en" / "nodeDefs.json"

# Lists of local files: what is left of them is the same on every machine.
_LOCAL_FILES = {("MFLoadModel", "model_name"): 1, ("MFLoadDepth", "file"): 0}


def relevant(object_info: dict) -> dict:
    """Definitions of the pack's nodes and the workflows' others, without the names of local files."""
    used = {node["type"] for path in WORKFLOWS.glob("*.json") for node in json.loads(path.read_text())["nodes"]}
    kept = {name: info for name, info in object_info.items() if name in used or name.startswith("MF")}
    for info in kept.values():
        info["python_module"] = info["python_module"].partition(".")[0]
    for (node, name), count in _LOCAL_FILES.items():
        options = kept[node]["input"]["required"][name][1]
        options["options"] = options["options"][:count]
    return dict(sorted(kept.items()))


def pack_nodes(definitions: dict) -> dict:
    """Those of the definitions that are the pack's own."""
    return {name: info for name, info in definitions.items() if name.startswith("MF")}


def node_texts(info: dict[str, Any]) -> dict[str, Any]:
    """What a node says to people, in the form of a locale's nodeDefs.json."""
    inputs = {}
    for name, (_, options) in (info["input"].get("required", {}) | info["input"].get("optional", {})).items():
        inputs[name] = {"name": name, "tooltip": options["tooltip"]}
        if options.get("control_after_generate"):
            inputs["control_after_generate"] = {"name": "control after generate"}
        if options.get("image_upload"):
            inputs["upload"] = {"name": "choose depth file to upload"}
    outputs = {}
    for index, tooltip in enumerate(info["output_tooltips"]):
        name = info["output_name"][index]
        # The frontend shows an output that is called as its type by the name that ComfyUI has for the type.
        outputs[str(index)] = ({} if name == info["output"][index] else {"name": name}) | {"tooltip": tooltip}
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": inputs,
        **({"outputs": outputs} if outputs else {}),
    }


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with urllib.request.urlopen(sys.argv[1] + "/object_info") as answer:
        found = relevant(json.load(answer))
    write_json(RECORD, found)
    write_json(ENGLISH, {name: node_texts(info) for name, info in pack_nodes(found).items()})
