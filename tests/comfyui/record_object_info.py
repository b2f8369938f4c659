"""Record what a real ComfyUI says about the pack's nodes, and about the others that the workflows use.

Writes tests/comfyui/data/object_info.json and, from it, the English texts of the nodes, locales/en/nodeDefs.json. A new
node gets help pages and Chinese texts to fill in: web/docs/NODE.md, web/docs/NODE/zh.md, locales/zh/nodeDefs.json. The
tests of the documentation say what is still missing there. Blueprints are drawn again, see `.write_blueprints`.

Usage, in the root of the repository: python -m tests.comfyui.record_object_info
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .host import PACK, Server, find_installation
from .workflow_prompt import all_nodes

HERE = Path(__file__).resolve().parent
WORKFLOWS, BLUEPRINTS = PACK / "workflows", PACK / "subgraphs"
RECORD = HERE / "data" / "object_info.json"
ENGLISH, CHINESE = (PACK / "locales" / language / "nodeDefs.json" for language in ("en", "zh"))
PAGES = PACK / "web" / "docs"
SECTIONS = {
    "en": ("Inputs", "Outputs", "Example", "When something goes wrong"),
    "zh": ("输入", "输出", "示例", "常见问题"),
}

# Lists of local files: what is left of them is the same on every machine.
_LOCAL_FILES = {
    ("MFLoadModel", "model_name"): 2,
    ("MFLoadModel", "text_encoder"): 1,
    ("MFLoadModel", "vae"): 1,
    ("MFLoadDepth", "file"): 0,
}


def relevant(object_info: dict) -> dict:
    """Definitions of the pack's nodes and the workflows' others, without the names of local files."""
    files = [*WORKFLOWS.glob("*.json"), *BLUEPRINTS.glob("*.json")]
    used = {node["type"] for path in files for node in all_nodes(json.loads(path.read_text(encoding="utf-8")))}
    kept = {name: info for name, info in object_info.items() if name in used or name.startswith("MF")}
    for info in kept.values():
        info["python_module"] = info["python_module"].partition(".")[0]
    for (node, name), count in _LOCAL_FILES.items():
        groups = kept[node]["input"]
        options = next(group for group in groups.values() if name in group)[name][1]
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


def page_path(node: str, language: str) -> Path:
    return PAGES / f"{node}.md" if language == "en" else PAGES / node / f"{language}.md"


def new_page(info: dict[str, Any], language: str) -> str:
    """A help page to fill in, with what the node itself says."""
    columns = {"en": ("Input", "Output", "Meaning"), "zh": ("输入", "输出", "说明")}[language]
    given = node_texts(info)["inputs"]
    tables = (
        [(f"`{name}`", text["tooltip"]) for name, text in given.items() if "tooltip" in text],
        [(f"`{name}`", text) for name, text in zip(info["output_name"], info["output_tooltips"], strict=True)],
    )
    english_name = f" ({info['display_name']})" if language == "zh" else ""
    parts = [info["description"] + english_name]
    for heading, column, rows in zip(SECTIONS[language], columns, tables, strict=False):
        lines = [f"| {column} | {columns[2]} |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]
        parts += [f"## {heading}", "\n".join(lines)]
    parts += [f"## {heading}" for heading in SECTIONS[language][2:]]
    return "\n\n".join(parts) + "\n"


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def record(object_info: dict[str, Any]) -> None:
    """Write the record, the English texts, and what a new node still lacks."""
    found = relevant(object_info)
    english = {name: node_texts(info) for name, info in pack_nodes(found).items()}
    chinese = json.loads(CHINESE.read_text(encoding="utf-8"))
    write_json(RECORD, found)
    write_json(ENGLISH, english)
    write_json(CHINESE, {name: chinese.get(name, texts) for name, texts in english.items()})
    for name, info in pack_nodes(found).items():
        for language in SECTIONS:
            page = page_path(name, language)
            if not page.exists():
                page.parent.mkdir(exist_ok=True)
                page.write_text(new_page(info, language), encoding="utf-8")


if __name__ == "__main__":
    from .write_blueprints import write_files  # which reads what is recorded here

    with TemporaryDirectory() as base:
        server = Server(find_installation(), Path(base), "modality-forcing")
        try:
            server.wait_until_ready()
            record(server.get("/object_info"))
            write_files()
        finally:
            server.stop()
