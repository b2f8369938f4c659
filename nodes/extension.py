"""The nodes as one ComfyUI extension."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .depth_completion import MFDepthCompletion
from .depth_to_image import MFDepthToImage
from .detokenize import MFDepthDetokenize
from .encode_depth import MFEncodeDepth
from .example_scene import MFExampleScene
from .latents import MFDepthToImageLatent, MFEmptyLatent, MFImageToDepthLatent
from .load_depth import MFLoadDepth
from .load_model import MFLoadModel
from .merge_point_clouds import MFMergePointClouds
from .point_cloud import MFToPointCloud
from .render_view import MFRenderView
from .restore_size import MFRestoreSize
from .sampler import MFSampler
from .save_depth import MFSaveDepth
from .streams import MFMergeLatent, MFSplitLatent
from .tilt import MFTilt


class ModalityForcingExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
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
