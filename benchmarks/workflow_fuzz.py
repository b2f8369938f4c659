"""Random types and extremes into every input of every node, over HTTP: ``python -m mforce.benchmarks.workflow_fuzz``.

A fault is: an answer that is neither a run nor a 400, an error of a node that is not a sentence of its own, a run that
an interruption does not end, more than 8 GB, or the end of the server. A case follows from the seed and its number.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from .comfyui_server import ComfyUI, ServerEnded, messages

#: Bytes of address space that the server gets, and seconds after which a run is interrupted and then given up.
ADDRESSES, SECONDS, GIVEN_UP = 16 << 30, 20.0, 60.0
_LONGEST_MESSAGE = 1000
_DEPTH_FILE = "measured.npy"

#: Cheap nodes that feed the one that is tried.
FEED: dict[str, dict[str, Any]] = {
    "load": {"class_type": "MFLoadModel", "inputs": {"model_name": "nano (built-in)", "weight_dtype": "default"}},
    "scene": {"class_type": "MFExampleScene", "inputs": {"scene": "yellow_sphere"}},
    "text": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["load", 1], "text": "a yellow sphere"}},
    "encoded": {
        "class_type": "MFEncodeDepth",
        "inputs": {
            "depth": ["scene", 1],
            **{"meaning": "depth (far is bright)", "far_to_near": 10.0, "fit": "crop", "fill_seed": 0},
            **{"width": 64, "height": 64},
        },
    },
    "joint": {"class_type": "MFDepthToImageLatent", "inputs": {"depth": ["encoded", 0], "variations": 1}},
    "split": {"class_type": "MFSplitLatent", "inputs": {"latent": ["joint", 0]}},
    "geometry": {"class_type": "MFDepthDetokenize", "inputs": {"depth": ["encoded", 0], "fov_degrees": 65.0}},
    "cloud": {
        "class_type": "MFToPointCloud",
        "inputs": {
            "geometry": ["geometry", 0],
            **{"fov_degrees": 0.0, "edge_threshold": 100.0, "remove_outliers": False},
            **{"density": 1, "batch_index": 0, "max_points": 10_000},
        },
    },
    "clip": {"class_type": "RepeatImageBatch", "inputs": {"image": ["scene", 0], "amount": 2}},
    "video": {"class_type": "CreateVideo", "inputs": {"images": ["clip", 0], "fps": 12.0}},
    "nothing": {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 64, "height": 64}},
    "hole": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 16, "height": 16}},
    "holes": {
        "class_type": "MaskComposite",
        "inputs": {"destination": ["nothing", 0], "source": ["hole", 0], "x": 24, "y": 24, "operation": "add"},
    },
}
#: What is linked to an input of a type.
LINKS: dict[str, list[Any]] = {
    "MODEL": ["load", 0],
    "VAE": ["load", 2],
    "CONDITIONING": ["text", 0],
    "IMAGE": ["scene", 0],
    "VIDEO": ["video", 0],
    "MASK": ["geometry", 3],
    "MOGE_GEOMETRY": ["geometry", 0],
    "FILE_3D_PLY": ["cloud", 0],
    "LATENT": ["joint", 0],
}
#: Inputs whose value is not the first choice, the default or the link of their type.
VALUES: dict[tuple[str, str], Any] = {
    ("MFDepthToImageLatent", "depth"): ["encoded", 0],
    ("MFDepthDetokenize", "depth"): ["encoded", 0],
    ("MFDepthToGeometry", "depth"): ["scene", 1],
    ("MFEncodeDepth", "depth"): ["scene", 1],
    ("MFDepthCompletion", "depth"): ["encoded", 0],
    ("MFMergeLatent", "rgb"): ["split", 0],
    ("MFMergeLatent", "depth"): ["split", 1],
    ("MFRestoreSize", "content"): ["geometry", 0],
    ("MFRestoreSize", "latent"): ["encoded", 0],
    ("MFLoadDepth", "file"): _DEPTH_FILE,
    ("MFSampler", "steps"): 2,
    ("MFRenderView", "frames"): 2,
    ("MFRenderView", "path"): "swing",
    ("MFVideoDepth", "clip"): ["clip", 0],
    ("MFExtendView", "holes"): ["holes", 0],
}
_MEMBERS = {"point_clouds": ("point_clouds.point_cloud0", "point_clouds.point_cloud1")}

_STRANGE: tuple[Any, ...] = (
    *(0, -1, 1, 17, 2**31, -(2**31) - 1, 2**53 + 1, 2**63, 2**64, 10**30, 10**400),
    *(0.0, -0.0, 0.5, 1e-308, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "0", "-1", "1e9", "nan", "inf", "true", "None", "\0", "\ud800", "\U0001f600", "ü" * 300, "a" * 5000),
    *(
        "..",
        "../../../etc/passwd",
        "/etc/passwd",
        "C:\\Windows\\win.ini",
        "a/../../b",
        "~/x",
        "x [output]",
        "../x [temp]",
    ),
    *("%batch_num%", "%width%%height%", "%batch_num%/%batch_num%", "a\nb", "*", ".", "./", "con", "-rf", "a:b|c?"),
    *(None, True, False, [], {}, [1], [1, 2, 3], {"__value__": 1}, {"a": {"b": [None]}}, [[[[]]]]),
    *(["nobody", 0], ["scene", 99], ["scene", 2], ["scene", 1], ["load", 0], ["load", 1], ["load", 2], ["text", 0]),
    *(["split", 0], ["split", 1], ["joint", 0], ["geometry", 0], ["geometry", 1], ["geometry", 3], ["encoded", 0]),
    *(["cloud", 0], ["cloud", 1], ["tried", 0]),
)


def node_inputs(info: Mapping[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Inputs of a node in ``/object_info`` by name: type, or list of choices, and options."""
    groups = [info["input"].get(kind, {}) for kind in ("required", "optional")]
    return {name: (spec[0], spec[1] if len(spec) > 1 else {}) for group in groups for name, spec in group.items()}


def whole_inputs(node: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all inputs with which a node runs, but for optional ones of types that no cheap node makes."""
    found: dict[str, Any] = {}
    for name, (kind, options) in node_inputs(info).items():
        choices = kind if isinstance(kind, list) else options.get("options")
        if (node, name) in VALUES:
            found[name] = VALUES[node, name]
        elif name in _MEMBERS:
            found.update(dict.fromkeys(_MEMBERS[name], LINKS["FILE_3D_PLY"]))
        elif "default" in options:
            found[name] = options["default"]
        elif choices:
            found[name] = choices[0]
        elif name in info["input"].get("required", {}) or set(kind.split(",")) & LINKS.keys():
            found[name] = next(LINKS[one] for one in kind.split(",") if one in LINKS)
    return found


def strange_value(kind: Any, options: Mapping[str, Any], rng: Random) -> Any:
    """A value of any type, or an extreme of the right one."""
    choices = kind if isinstance(kind, list) else options.get("options")
    own = [options[name] for name in ("min", "max") if name in options]
    if own:
        own += [own[0] - 1, own[-1] + 1, rng.uniform(own[0], min(own[-1], 1e6)), rng.randint(0, 300)]
    if choices:
        own.append(rng.choice(choices))
    return rng.choice(own) if own and rng.random() < 0.5 else rng.choice(_STRANGE)


def possible_value(kind: Any, options: Mapping[str, Any], given: Any, rng: Random) -> Any:
    """A value that a person could choose, often the least or the greatest; ``given`` for what is no widget."""
    choices = kind if isinstance(kind, list) else options.get("options")
    if choices:
        return rng.choice(choices)
    if kind == "BOOLEAN":
        return rng.random() < 0.5
    if "min" not in options:
        return rng.choice((given, *(text for text in _STRANGE if isinstance(text, str)))) if kind == "STRING" else given
    low, high, step = options["min"], options["max"], options.get("step", 1)
    middle = low + step * rng.randint(0, 20)
    return rng.choice((low, high, middle, middle))


def draw(seed: int, number: int, nodes: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The node that case ``number`` tries, and the prompt."""
    rng = Random(f"{seed}/{number}")
    node = sorted(nodes)[number % len(nodes)]
    inputs = whole_inputs(node, nodes[node])
    declared = node_inputs(nodes[node])
    possible = rng.random() < 0.5
    for name in rng.sample(sorted(inputs), min(len(inputs), rng.choice((1, 1, 2, 3)))):
        kind, options = declared.get(name, ("FILE_3D_PLY", {}))
        if possible:
            inputs[name] = possible_value(kind, options, inputs[name], rng)
        elif rng.random() < 0.08:
            del inputs[name]
        else:
            inputs[name] = strange_value(kind, options, rng)
    if not possible and rng.random() < 0.05:
        # Not "cls", nor a link to an unknown node: in core both end in a fault of its own, for every node.
        known = [value for value in _STRANGE if value != ["nobody", 0]]
        inputs[rng.choice(("extra", "self", "__class__", "hidden", ""))] = rng.choice(known)
    prompt = {**FEED, "tried": {"class_type": node, "inputs": inputs}}
    for slot in range(len(nodes[node]["output"])):
        prompt[f"shown {slot}"] = {"class_type": "PreviewAny", "inputs": {"source": ["tried", slot]}}
    return node, prompt


def run_case(server: ComfyUI, prompt: Mapping[str, Any]) -> tuple[str, str | None]:
    """Run one prompt. How it ended ("refused", "ran", "error" or "interrupted"), and the fault, if it is one.

    Raises:
        ServerEnded: the process is gone.
    """
    status, answer = server.request("/prompt", {"prompt": prompt})
    if status == 400 and isinstance(answer, dict) and "error" in answer:
        return "refused", None
    if status != 200:
        return "refused", f"the answer {status}: {str(answer)[:200]}"
    name = answer["prompt_id"]
    try:
        entry = server.wait(name, SECONDS, pause=0.03)
    except TimeoutError:
        server.request("/interrupt", {"prompt_id": name})
        try:
            entry = server.wait(name, GIVEN_UP)
        except TimeoutError:
            return "interrupted", "hung: an interruption did not end it"
    for error in messages(entry, "execution_error"):
        return "error", _wrong_with(error)
    return ("interrupted" if messages(entry, "execution_interrupted") else "ran"), None


def _wrong_with(error: Mapping[str, Any]) -> str | None:
    """Why an error is not one that a person can act on."""
    message, kind = str(error["exception_message"]).strip(), str(error["exception_type"])
    if kind.endswith("DependencyCycleError"):  # core's own
        return None
    told = f"{error['node_type']}: {kind}: {message[:200]!r}"
    if kind != "ValueError" or "\n" in message or len(message) > _LONGEST_MESSAGE:
        return told
    return None


def fuzz(server: ComfyUI, count: int, seed: int, start: int = 0) -> tuple[Counter[str], list[tuple[int, str, str]]]:
    """How the cases ended, and the faults: number, node, what. Ends early with the server."""
    np.save(server.base / "input" / _DEPTH_FILE, np.linspace(1, 5, 64 * 48, dtype=np.float32).reshape(48, 64))
    everything = server.request("/object_info")[1]
    nodes = {name: info for name, info in everything.items() if name.startswith("MF")}
    ends: Counter[str] = Counter()
    faults: list[tuple[int, str, str]] = []
    for number in range(start, start + count):
        node, prompt = draw(seed, number, nodes)
        try:
            end, fault = run_case(server, prompt)
        except (ServerEnded, ConnectionError, OSError) as error:
            end, fault = "server ended", str(error)[:500]
        ends[end] += 1
        if fault is not None:
            faults.append((number, node, fault))
            tried = json.dumps(prompt["tried"]["inputs"])[:300]
            print(number, node, fault, tried, file=sys.stderr, flush=True)
        if end == "server ended" or fault == "hung: an interruption did not end it":
            break
    return ends, faults


def limited() -> tuple[str, ...]:
    """A command before the server's that bounds its memory, where the system has one."""
    return ("prlimit", f"--as={ADDRESSES}") if sys.platform == "linux" else ()


def main() -> int:
    """Run from the command line; the exit code is 1 where a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("comfyui", type=Path, help="ComfyUI's folder")
    parser.add_argument("--python", type=Path, help="its Python (default: that of its .venv)")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mforce-workflow-fuzz-") as folder:
        root = options.comfyui.expanduser().resolve()
        with ComfyUI(root, Path(folder), options.python, before=limited()) as server:
            server.wait_until_ready()
            ends, faults = fuzz(server, options.count, options.seed, options.start)
    kinds = Counter(re.sub(r"\d+|'.*?'", "#", what) for _, _, what in faults)
    figures = {
        "cases": sum(ends.values()),
        "seed": options.seed,
        "ends": dict(sorted(ends.items())),
        "faults": len(faults),
        "kinds": [[kind, times] for kind, times in kinds.most_common()],
        "seconds": round(time.monotonic() - began),
    }
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
