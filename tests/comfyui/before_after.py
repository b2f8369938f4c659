"""Whether two versions of the pack make the same pixels: every saved workflow of the built-in model, at fixed seeds.

``run`` starts a ComfyUI with the pack in a folder, queues each workflow of another folder that needs no download, as it
is saved, and keeps what its output nodes made. ``compare`` reports the largest difference of every file of two runs.
Give both runs the workflows of the older version: it does not know the nodes that came later.

Usage:
    python -m tests.comfyui.before_after run PACK RESULTS WORKFLOWS
    python -m tests.comfyui.before_after compare RESULTS RESULTS
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image

from .host import Server, find_installation
from .workflow_prompt import named_files, to_prompt

FOLDER = "modality-forcing"


def run(pack: Path, results: Path, workflows: Path) -> None:
    """Run every workflow with a pack; files go to RESULTS/made/WORKFLOW/NODE_NUMBER.SUFFIX."""
    results.mkdir(parents=True)
    server = Server(find_installation(), results, FOLDER, pack.resolve())
    try:
        server.wait_until_ready()
        object_info = server.get("/object_info")
        for path in sorted(workflows.glob("*.json")):
            prompt = to_prompt(json.loads(path.read_text()), object_info)
            if named_files(prompt):
                continue
            entry = server.wait(server.queue(prompt), limit=3600)
            assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
            folder = results / "made" / path.stem
            folder.mkdir(parents=True)
            for node, output in entry["outputs"].items():
                for index, file in enumerate(output_files(results, output)):
                    shutil.copy(file, folder / f"{node}_{index}{file.suffix}")
            print(path.stem, sorted(file.name for file in folder.iterdir()), flush=True)
    finally:
        server.stop()


def output_files(base: Path, output: dict[str, Any]) -> list[Path]:
    """The files that an output node reports."""
    files = [base / "temp" / Path(name).name for name in output.get("result", []) if isinstance(name, str) and name]
    for kind in ("images", "3d", "depth_files"):
        for file in output.get(kind, []):
            home = base / ("temp" if file["type"] == "temp" else "output")
            files.append(home / file["subfolder"] / file["filename"])
    return files


def read(path: Path) -> np.ndarray:
    """The values of a file: pixels, frames, or points with their colors."""
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return np.asarray(picture, dtype=np.float64)
    if path.suffix == ".mp4":
        decode = ["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        return np.frombuffer(subprocess.run(decode, check=True, capture_output=True).stdout, np.uint8).astype(float)
    if path.suffix == ".glb":
        return np.asarray(trimesh.load(path, force="mesh").vertices)
    header, _, body = path.read_bytes().partition(b"end_header\n")
    count = int(re.search(rb"element vertex (\d+)", header)[1])
    position = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    table = np.frombuffer(body, position, count)
    return np.concatenate([table["xyz"], table["rgb"]], axis=1).astype(np.float64)


def compare(first: Path, second: Path) -> bool:
    """Print the largest difference of each file of two runs; whether both made the same files of the same sizes."""
    whole = True
    made = [{path.relative_to(folder / "made") for path in folder.glob("made/*/*")} for folder in (first, second)]
    for name in sorted(made[0] | made[1]):
        if name not in made[0] & made[1]:
            print(f"{name}: only in one of them")
            whole = False
            continue
        one, other = (read(folder / "made" / name) for folder in (first, second))
        if one.shape != other.shape:
            print(f"{name}: {one.shape} against {other.shape}")
            whole = False
            continue
        gap = np.abs(one - other)
        print(f"{name}: largest difference {gap.max():g}, mean {gap.mean():.3g}, of values up to {np.abs(one).max():g}")
    return whole and bool(made[0])


if __name__ == "__main__":
    command, *folders = sys.argv[1:]
    if command == "run":
        run(*map(Path, folders))
    else:
        sys.exit(not compare(*map(Path, folders)))
