"""The sheets of pictures in docs/concepts/paths.md: ``python -m mforce.evaluation.path_pictures FOLDER``.

``follow.png``: a depth map of each of four scenes, and pictures that follow it from strictly to hardly.
``six_paths.png``: pictures and their depth along the paths of the study of sampling.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from ..mforce_core.depth.preview import depth_preview
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.settings import FAST_SIGMA
from .nano import object_prompts
from .sampling_study import PATHS
from .sampling_subject import Subject, Way

#: log2 of alpha of the columns; None is a map that stays clean.
STRENGTHS = (None, -14.0, -8.0, -5.0, -2.0, 0.0, 3.0)
_SEED = 1_000_000
_SCENES = 4
_TITLE = 14


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the sheets of the page on paths again.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    subject = Subject(Pipeline.load(options.model), _SEED)
    follow(subject).save(options.folder / "follow.png", optimize=True)
    six_paths(subject).save(options.folder / "six_paths.png", optimize=True)


def follow(subject: Subject) -> Image.Image:
    """Rows of scenes; the given depth, then a picture for every strength, all from the same noise."""
    layout, _, exact = subject.scenes(_SCENES)
    prompts, given = subject.captions(layout), subject.encode_depth(exact)
    columns = [("given depth", depth_preview(exact))]
    for strength in STRENGTHS:
        text = f"d2i sigma={FAST_SIGMA}" + ("" if strength is None else f" log2_alpha={strength:g}")
        made = subject.run(prompts, Way(text, 20, "dpmpp_2m"), mode="d2i", depth=given).rgb
        columns.append(("clean" if strength is None else f"{strength:g}", _pixels(subject.decode(made))))
    return _sheet(columns)


def six_paths(subject: Subject) -> Image.Image:
    """Rows of prompts, each with the depth under its picture; a column for every path."""
    known = object_prompts()
    prompts = [known[number].text for number in (5, 40, 77)]
    columns = []
    for name, way in PATHS.items():
        made = subject.run(prompts, way)
        pairs = zip(_pixels(subject.decode(made.rgb)), depth_preview(subject.maps(made.depth)), strict=True)
        columns.append((name.partition(",")[0], np.stack([picture for pair in pairs for picture in pair])))
    return _sheet(columns)


def _pixels(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [0, 1] -> (B, H, W, 3) uint8."""
    return rearrange((255 * images).round().to(torch.uint8), "b c h w -> b h w c").numpy()


def _sheet(columns: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """Columns (B, H, W, 3) side by side under their titles."""
    pixels = np.concatenate([rearrange(pictures, "b h w c -> (b h) w c") for _, pictures in columns], axis=1)
    sheet = Image.new("RGB", (pixels.shape[1], pixels.shape[0] + _TITLE), "white")
    sheet.paste(Image.fromarray(pixels), (0, _TITLE))
    draw, width = ImageDraw.Draw(sheet), columns[0][1].shape[2]
    for number, (title, _) in enumerate(columns):
        draw.text((number * width + 2, 1), title, fill="black")
    return sheet.quantize(256)  # half the size of the file


if __name__ == "__main__":
    main()
