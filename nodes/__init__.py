"""The pack's nodes, in the order of the menu. The only package here that imports ComfyUI; only ComfyUI imports it.

A new node is a module of its own and a line in this list.
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .depth_completion import MFDepthCompletion
from .depth_detokenize import MFDepthDetokenize
from .depth_map_to_image import MFDepthToImage
from .depth_to_image_latent import MFDepthToImageLatent
from .empty_latent import MFEmptyLatent
from .encode_depth import MFEncodeDepth
from .example_scene import MFExampleScene
from .image_to_depth_latent import MFImageToDepthLatent
from .load_depth import MFLoadDepth
from .load_model import MFLoadModel
from .merge_latent import MFMergeLatent
from .merge_point_clouds import MFMergePointClouds
from .render_view import MFRenderView
from .restore_size import MFRestoreSize
from .sampler import MFSampler
from .save_depth import MFSaveDepth
from .split_latent import MFSplitLatent
from .tilt import MFTilt
from .to_point_cloud import MFToPointCloud

NODES: list[type[io.ComfyNode]] = [
    MFLoadModel,
    MFEmptyLatent,
    MFImageToDepthLatent,
    MFDepthToImageLatent,
    MFEncodeDepth,
    MFSampler,
    MFTilt,
    MFDepthCompletion,
    MFSplitLatent,
    MFMergeLatent,
    MFDepthDetokenize,
    MFDepthToImage,
    MFRestoreSize,
    MFLoadDepth,
    MFSaveDepth,
    MFToPointCloud,
    MFMergePointClouds,
    MFRenderView,
    MFExampleScene,
]


class ModalityForcingExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
