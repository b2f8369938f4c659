"""Build the common tasks from an empty canvas as a person does, and count: searches, drags, and Run in a real browser.

Prints nodes and links of each and whether it ran; --shots FOLDER keeps pictures of the page. Needs playwright and a
Chromium (CHROMIUM, or ``chromium`` on the PATH).

Usage, in the root of the repository: python -m tests.comfyui.build_in_browser [--shots FOLDER]
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .canvas_page import Page
from .host import PACK, Server, find_installation

#: (words that are typed, what is chosen, where it goes), and (from, output, to, input).
TASKS: dict[str, tuple[list[tuple[str, str, int, int]], list[tuple[str, str, str, str]]]] = {
    "text to picture, depth and cloud": (
        [
            ("text to image depth", "Text to Image + Depth", 0, 0),
            ("to point cloud", "To Point Cloud", 440, 0),
            ("preview point cloud", "Preview Point Cloud", 860, 0),
            ("save image", "Save Image", 440, 480),
        ],
        [
            ("Text to Image + Depth", "geometry", "To Point Cloud", "geometry"),
            ("To Point Cloud", "point_cloud", "Preview Point Cloud", "model_3d"),
            ("Text to Image + Depth", "image", "Save Image", "images"),
        ],
    ),
    "picture to depth": (
        [
            ("load image", "Load Image", 0, 0),
            ("image to depth", "Image to Depth", 400, 0),
            ("mf save depth", "MF Save Depth", 860, 0),
        ],
        [
            ("Load Image", "IMAGE", "Image to Depth", "image"),
            ("Image to Depth", "geometry", "MF Save Depth", "depth"),
        ],
    ),
    "inpaint picture and depth": (
        [
            ("load image", "Load Image", 0, 0),
            ("inpaint image depth", "Inpaint Image + Depth", 400, 0),
            ("save image", "Save Image", 860, 0),
            ("mf save depth", "MF Save Depth", 860, 270),
        ],
        [
            ("Load Image", "IMAGE", "Inpaint Image + Depth", "image"),
            ("Load Image", "MASK", "Inpaint Image + Depth", "mask"),
            ("Inpaint Image + Depth", "image", "Save Image", "images"),
            ("Inpaint Image + Depth", "geometry", "MF Save Depth", "depth"),
        ],
    ),
}


def build(server: Server, name: str, shots: Path | None) -> dict[str, Any]:
    """One task from an empty canvas."""
    nodes, links = TASKS[name]
    with Page(server.url) as page:
        for node in nodes:
            page.search(*node)
        for link in links:
            page.drag(*link)
        counted = {"nodes": page.count("nodes"), "links": page.count("links")}
        entry = server.wait(page.run(), limit=600)
        page.look(0.95, 70, 110)
        page.page.wait_for_timeout(6000)
        if shots is not None:
            page.picture(str(shots / f"{name.replace(' ', '_')}.png"))
        return {**counted, "status": entry["status"]["status_str"], "complaints": page.complaints}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shots", type=Path)
    arguments = parser.parse_args()
    with TemporaryDirectory() as base:
        server = Server(find_installation(), Path(base), "comfyui-modality-forcing")
        try:
            server.wait_until_ready()
            shutil.copy(PACK / "nodes" / "examples" / "cone_and_ball.png", server.base / "input" / "example.png")
            for name in TASKS:
                print(name, json.dumps(build(server, name, arguments.shots)), flush=True)
        finally:
            server.stop()
