"""Scenes as a WebDataset tar: png, exact depth as npy, caption as txt and facts as json, one group of files a scene."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from .layout import FOV_DEGREES


class Scenes(NamedTuple):
    """rgb (n, 3, H, W) uint8, depth (n, H, W) float16 meters, and n captions."""

    rgb: Tensor
    depth: Tensor
    captions: list[str]


def write_tar(path: Path, scenes: Scenes, facts: dict[str, Any]) -> None:
    """Write scenes, the same bytes for the same scenes."""
    try:
        from webdataset import TarWriter
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "--format webdataset needs the package webdataset: pip install 'comfyui-modality-forcing[train]'."
        ) from None
    with path.open("wb") as file, TarWriter(file, encoder=False, mtime=0) as tar:
        for row, caption in enumerate(scenes.captions):
            image, depth = io.BytesIO(), io.BytesIO()
            Image.fromarray(scenes.rgb[row].permute(1, 2, 0).numpy()).save(image, "png")
            np.save(depth, scenes.depth[row].numpy())
            scene: dict[str, Any] = {"depth_kind": "metric", "scenes": facts}
            if "views" not in facts:  # otherwise every scene has its own
                scene["fov_degrees"] = FOV_DEGREES
            tar.write(
                {
                    "__key__": f"{facts['start'] + row:08d}",
                    "png": image.getvalue(),
                    "depth.npy": depth.getvalue(),
                    "txt": caption.encode(),
                    "json": json.dumps(scene).encode(),
                }
            )


def tar_facts(path: Path) -> dict[str, Any]:
    """The facts that a tar was written with; empty for another tar. Raises ValueError for a damaged one."""
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.name.endswith(".json") else None
                if content is not None:
                    return json.load(content).get("scenes", {})
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and write it again.") from None
    return {}
