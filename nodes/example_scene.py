"""Node: MF Example Scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

_FOLDER = Path(__file__).resolve().parent / "examples"


def example_names() -> list[str]:
    """Names of the scenes in the pack; each is NAME.png, NAME_depth.png (16 bits) and NAME.txt."""
    return sorted(caption.stem for caption in _FOLDER.glob("*.txt"))


class MFExampleScene(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFExampleScene",
            display_name="MF Example Scene",
            category="image",
            description=(
                "A rendered scene with exact depth that the nano model has not been trained on, to try the "
                "nodes without files of your own. Replace it by Load Image."
            ),
            search_aliases=["modality forcing", "example image", "test image", "sample scene"],
            inputs=[
                io.Combo.Input(
                    "scene",
                    options=example_names(),
                    tooltip="Which of the scenes that come with the pack to use.",
                )
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture, 128x128."),
                io.Image.Output(display_name="depth", tooltip="Its exact depth: far is bright, black is unknown."),
                io.String.Output(display_name="caption", tooltip="What the picture shows."),
            ],
        )

    @classmethod
    def execute(cls, scene: str) -> io.NodeOutput:
        with Image.open(_FOLDER / f"{scene}.png") as picture:
            image = torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0)
        with Image.open(_FOLDER / f"{scene}_depth.png") as picture:
            depth = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 65535.0)
        caption = (_FOLDER / f"{scene}.txt").read_text(encoding="utf-8").strip()
        return io.NodeOutput(image[None], depth[None, ..., None].expand(-1, -1, -1, 3).contiguous(), caption)
