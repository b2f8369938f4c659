"""Node: MF Depth Upscale."""

from __future__ import annotations

import math
from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ..mforce_core.full_size.refine import Tiling, count_tiles, refine_depth
from ..mforce_core.picture.color import to_bytes
from ..mforce_core.release import NANO_SIZE, PATCH_SIZE
from ..mforce_core.settings import DEPTH_STEPS, TILE_OVERLAP, TILE_STRENGTH
from .host.depth_pictures import preview
from .host.geometry import DA3Geometry, Geometry, as_moge, geometry_cameras, geometry_of_cameras, raw_depth
from .host.images import to_rgb
from .host.joint_model import check_joint
from .host.node import Node
from .host.progress import TileProgress
from .host.shared_inputs import geometry_output, model_input, seed_input, vae_input
from .host.tile_sampler import ENCODED_TOGETHER, TileSampler

#: By how much the proportions of depth and picture may differ: a canvas of few cells cannot keep them exactly.
_MOST_STRETCHED = 1.2


class MFDepthUpscale(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFDepthUpscale",
            display_name="MF Depth Upscale",
            category="image/geometry estimation",
            description=(
                "Bring depth to the size of its picture, with edges as fine as the picture's: the model goes over it"
                " tile by tile, starting from the enlarged depth. Pictures of any size, in the memory of a few tiles."
            ),
            search_aliases=[
                "modality forcing",
                "upscale depth",
                "high resolution depth",
                "tiled depth",
                "full size depth",
                "refine depth edges",
                "depth super resolution",
                "8k depth",
            ],
            inputs=[
                model_input(),
                io.Conditioning.Input("positive", tooltip="The prompt of the depth; an empty one will do."),
                vae_input(),
                io.Image.Input("image", tooltip="The picture in its full size."),
                io.MultiType.Input(
                    "depth",
                    types=[Geometry, DA3Geometry, io.Image],
                    tooltip=(
                        "Depth of the whole picture at any smaller size: the geometry of Depth Detokenize or of another"
                        " depth model, or an IMAGE that holds raw depth. One map per picture."
                    ),
                ),
                seed_input("Seed of the noise; the same seed and settings give the same depth."),
                io.Float.Input(
                    "strength",
                    default=TILE_STRENGTH,
                    min=0.05,
                    max=1.0,
                    step=0.01,
                    round=0.001,
                    tooltip="Noise that tiles start at. Higher: more is made anew. Lower: closer to the given depth.",
                ),
                io.Int.Input(
                    "steps",
                    default=DEPTH_STEPS,
                    min=1,
                    max=1000,
                    tooltip=(
                        "Steps of depth from noise; a tile takes the part of them that is its strength: at least 2,"
                        " at most 20 x strength."
                    ),
                ),
                io.Int.Input(
                    "tile",
                    default=NANO_SIZE,
                    min=PATCH_SIZE,
                    max=4096,
                    step=PATCH_SIZE,
                    tooltip=(
                        "Side of a tile, in multiples of 16 pixels: 128 for nano, about 512 for the released model."
                    ),
                ),
                io.Float.Input(
                    "overlap",
                    default=TILE_OVERLAP,
                    min=0.0,
                    max=0.9,
                    step=0.05,
                    round=0.01,
                    advanced=True,
                    tooltip="Share of a tile that the next one covers, too. More is smoother and takes longer.",
                ),
                io.Boolean.Input(
                    "follow_edges",
                    default=True,
                    advanced=True,
                    tooltip="Move edges of depth to the edges of the picture beside them.",
                ),
                io.Int.Input(
                    "tiles_at_once",
                    default=1,
                    min=1,
                    max=64,
                    advanced=True,
                    tooltip="Tiles that are sampled together: faster where there is memory for them.",
                ),
            ],
            outputs=[
                geometry_output(),
                io.Image.Output(display_name="preview", tooltip="Depth in colors: near is red, invalid is black."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        vae: Any,
        image: Tensor,
        depth: Any,
        seed: int,
        strength: float,
        steps: int,
        tile: int,
        overlap: float = TILE_OVERLAP,
        follow_edges: bool = True,
        tiles_at_once: int = 1,
    ) -> io.NodeOutput:
        check_joint(model)
        maps, valid = raw_depth(depth, None)
        pictures = to_rgb(image)
        _check_pair(maps, pictures)
        tiling = Tiling((tile, tile), overlap, ENCODED_TOGETHER, follow_edges)
        small, full = (maps.shape[1], maps.shape[2]), (pictures.shape[1], pictures.shape[2])
        bar = TileProgress(len(maps) * count_tiles(small, full, tiling))
        options: dict[str, Any] = {
            "strength": strength,
            "steps": steps,
            "together": tiles_at_once,
            "report": bar.report,
        }
        refined = []
        for number, (picture, coarse) in enumerate(zip(pictures, torch.where(valid, maps, torch.nan), strict=True)):
            pixels = to_bytes(picture.cpu()).numpy()
            sampler = TileSampler(model, positive, vae, seed=seed + number, **options)
            refined.append(torch.from_numpy(refine_depth(pixels, coarse, sampler, tiling)))
        depths = torch.stack(refined)
        known = depths.isfinite()
        given = as_moge(depth) if isinstance(depth, dict) else {}
        geometry = geometry_of_cameras(depths, known, pictures.cpu(), geometry_cameras(given, depths, 0.0))
        if "extrinsics" in given:
            geometry["extrinsics"] = given["extrinsics"]
        colors = preview(torch.where(known, depths, 1.0), known)
        return io.NodeOutput(geometry, colors.to(comfy.model_management.intermediate_device()))


def _check_pair(maps: Tensor, pictures: Tensor) -> None:
    """Raise ValueError unless there is a map of the whole of every picture."""
    if len(maps) != len(pictures):
        raise ValueError(f"there are {len(maps)} depth maps for {len(pictures)} pictures; connect one map per picture.")
    (rows, columns), (height, width) = maps.shape[1:], pictures.shape[1:3]
    stretched = (columns / rows) / (width / height)
    if abs(math.log(stretched)) > math.log(_MOST_STRETCHED):
        raise ValueError(
            f"the depth is {columns}x{rows} and the picture {width}x{height}, which have other proportions: set fit of"
            " MF Image to Depth Latent to keep aspect, or put MF Restore Size before."
        )
