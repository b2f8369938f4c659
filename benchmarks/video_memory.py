"""Peak memory of a ComfyUI that makes depth of videos: ``python -m mforce.benchmarks.video_memory ~/ComfyUI``.

One server runs *Load Video* → *MF Video to Depth Video* → *Save Video* on nano with one clip after the other, from the
shortest to the longest. Before each run the kernel forgets the highest memory so far, so that each has its own; what an
earlier run leaves behind counts as that of the next.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..mforce_core.device import device_name
from ..mforce_core.video.reader import VideoReader
from ..mforce_core.video.writer import VideoWriter
from .comfyui_server import ComfyUI, messages

#: Height and width of the clips, and frames a second.
_SIZE, _RATE = (384, 512), Fraction(24)
_LIMIT = 3600.0


def prompt_for(clip: str, steps: int) -> dict[str, Any]:
    """The graph as the API takes it."""
    video = {
        **{"model": ["load", 0], "positive": ["text", 0], "vae": ["load", 2], "video": ["clip", 0]},
        **{"width": 128, "height": 128, "fit": "keep aspect", "seed": 0, "layout": "side by side", "colors": "gray"},
        **{"original_size": True, "depth_files": "none", "filename_prefix": "depth/clip", "steps": steps},
        **{"one_scale": True, "carry": 0.0, "anchor_every": 24, "overlap": 4, "flow": False, "cut": 2.0},
        "frames_at_once": 8,
    }
    nodes = {
        "load": ("MFLoadModel", {"model_name": "nano (built-in)", "weight_dtype": "default", "attention": "auto"}),
        "text": ("CLIPTextEncode", {"clip": ["load", 1], "text": ""}),
        "clip": ("LoadVideo", {"file": clip}),
        "depth": ("MFVideoToDepthVideo", video),
        "save": ("SaveVideo", {"video": ["depth", 0], "filename_prefix": "clip", "format": "auto"}),
    }
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def write_clip(path: Path, frames: int) -> None:
    """A block that wanders before a shaded wall."""
    height, width = _SIZE
    rows, columns = np.indices(_SIZE)
    wall = np.stack([rows % 256, columns % 256, np.full(_SIZE, 128)], -1).astype(np.uint8)
    with VideoWriter(path, _RATE) as writer:
        for number in range(frames):
            picture = wall.copy()
            left = 4 * number % (width - 100)
            picture[height // 3 : 2 * height // 3, left : left + 100] = 200, 40, 40
            writer.write(picture)


def measure(server: ComfyUI, lengths: Sequence[int], steps: int) -> list[dict[str, int]]:
    """Peak bytes of a run for every length, after those before it.

    Raises:
        ValueError: a run failed, or its video lacks frames.
    """
    rows = [{"frames": 0, "bytes": server.resident_bytes}]
    for length in lengths:
        write_clip(server.base / "input" / f"{length}.mp4", length)
        Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
        entry = server.wait(server.queue(prompt_for(f"{length}.mp4", steps)), _LIMIT, pause=1.0)
        if problems := messages(entry, "execution_error"):
            raise ValueError(problems[0]["exception_message"])
        with VideoReader(sorted((server.base / "output").glob("*.mp4"))[-1]) as video:
            if video.count != length:
                raise ValueError(f"the video has {video.count} frames, not {length}")
        rows.append({"frames": length, "bytes": server.peak_bytes})
        print(f"{length} frames: {rows[-1]['bytes'] / 2**20:.0f} MiB", flush=True)
    return rows


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("comfyui", type=Path, help="a checkout of ComfyUI with its .venv")
    parser.add_argument("--frames", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, ComfyUI(options.comfyui, Path(folder)) as server:
        server.wait_until_ready()
        found = {
            "machine": f"{device_name(torch.device('cpu'))}, {os.cpu_count()} cores",
            "comfyui": server.request("/system_stats")[1]["system"]["comfyui_version"],
            "size": list(_SIZE),
            "steps": options.steps,
            "rows": measure(server, options.frames, options.steps),
        }
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
