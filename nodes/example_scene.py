"""Node: MF Example Scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from .host.images import gray_image
from .host.node import Node

# Each scene is NAME.png, NAME_depth.png (16 bits) and NAME.txt.
_FOLDER = Path(__file__).resolve().parent / "examples"


class MFExampleScene(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFExampleScene",
            display_name="MF Example Scene",
            category="image",
            description=(
                "A rendered scene with exact depth that the nano model was not trained on, for trying the nodes without"
                " files of your own. Replace it with Load Image."
            ),
            search_aliases=["modality forcing", "example image", "test image", "sample scene"],
            inputs=[
                io.Combo.Input(
                    "scene",
                    options=sorted(caption.stem for caption in _FOLDER.glob("*.txt")),
                    tooltip="Which of the scenes that come with the pack to use.",
                )
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture, 128x128 or as its name says."),
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
        return io.NodeOutput(image[None], gray_image(depth[None]), caption)
