"""The pack's nodes, in the order of the menu: one file per node, named as people see it.

A node is a table of inputs and outputs and a short ``execute``. What it computes is in ``mforce_core``; what it needs
of ComfyUI's internals is in ``host``. This package alone imports ComfyUI, and only ComfyUI imports it.

To add a node:

1. write ``my_node.py`` with a `.host.node.Node`; inputs that other nodes have too are in `.host.shared_inputs`;
2. import it here and put it into `NODES`;
3. run ``python -m tests.comfyui.record_object_info``: it records the node's definition and its English texts, and
   creates its help pages and Chinese texts for you to fill in. The tests in ``tests/comfyui`` say what is missing.

Saved workflows store values by position, so a new input of an old node is optional and goes last;
``tests/comfyui/test_contract.py`` checks that.
"""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .depth_completion import MFDepthCompletion
from .depth_detokenize import MFDepthDetokenize
from .depth_ensemble import MFDepthEnsemble
from .depth_map_to_image import MFDepthToImage
from .depth_of_field import MFDepthOfField
from .depth_passes import MFDepthPasses
from .depth_to_geometry import MFDepthToGeometry
from .depth_to_image_latent import MFDepthToImageLatent
from .depth_upscale import MFDepthUpscale
from .empty_latent import MFEmptyLatent
from .encode_depth import MFEncodeDepth
from .example_scene import MFExampleScene
from .explore import MFExplore
from .extend_view import MFExtendView
from .fog import MFFog
from .host.blueprint_aliases import add_blueprint_aliases
from .host.path_route import add_path_route
from .image_to_depth_latent import MFImageToDepthLatent
from .latent_from_batch import MFLatentFromBatch
from .load_depth import MFLoadDepth
from .load_model import MFLoadModel
from .merge_latent import MFMergeLatent
from .merge_point_clouds import MFMergePointClouds
from .path import MFPath
from .render_view import MFRenderView
from .repeat_latent import MFRepeatLatent
from .restore_size import MFRestoreSize
from .sampler import MFSampler
from .save_camera import MFSaveCamera
from .save_depth import MFSaveDepth
from .save_layers import MFSaveLayers
from .sky import MFSky
from .split_latent import MFSplitLatent
from .stereo_pair import MFStereoPair
from .tilt import MFTilt
from .to_point_cloud import MFToPointCloud
from .to_splats import MFToSplats
from .video_depth import MFVideoDepth
from .video_to_depth_video import MFVideoToDepthVideo

NODES: list[type[io.ComfyNode]] = [
    MFLoadModel,
    MFEmptyLatent,
    MFImageToDepthLatent,
    MFDepthToImageLatent,
    MFEncodeDepth,
    MFSampler,
    MFPath,
    MFTilt,
    MFDepthCompletion,
    MFVideoDepth,
    MFVideoToDepthVideo,
    MFDepthUpscale,
    MFSplitLatent,
    MFMergeLatent,
    MFLatentFromBatch,
    MFRepeatLatent,
    MFDepthDetokenize,
    MFDepthToImage,
    MFDepthEnsemble,
    MFDepthToGeometry,
    MFSky,
    MFDepthPasses,
    MFDepthOfField,
    MFFog,
    MFRestoreSize,
    MFLoadDepth,
    MFSaveDepth,
    MFSaveLayers,
    MFToPointCloud,
    MFMergePointClouds,
    MFToSplats,
    MFRenderView,
    MFStereoPair,
    MFExtendView,
    MFExplore,
    MFSaveCamera,
    MFExampleScene,
]


class ModalityForcingExtension(ComfyExtension):
    async def on_load(self) -> None:
        add_path_route()
        add_blueprint_aliases()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
