"""Node: MF Video to Depth Video."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import InputImpl, io
from comfy_api.latest import ui as UI

from ..mforce_core.placement import KEEP
from ..mforce_core.video.depth_sequence import COLORS, DEPTH_ALONE, GRAY, LAYOUTS, Canvas
from ..mforce_core.video.steady import Steadier
from .host.clip_depth import Clip, ClipDepth
from .host.depth_video import FILES, NO_FILES, Look, make_depth_video
from .host.joint_latent import check_size
from .host.node import Node
from .host.shared_inputs import fit_inputs, model_input, seed_input, vae_input
from .host.steady_inputs import steadiness_inputs, steadiness_of


class MFVideoToDepthVideo(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFVideoToDepthVideo",
            display_name="MF Video to Depth Video",
            category="image/geometry estimation",
            description=(
                "A video of the depth of a video, with its sound and its frames a second. It is read, worked on and"
                " written some frames at a time, so that a video of any length takes the same memory."
            ),
            search_aliases=[
                "modality forcing",
                "video depth",
                "depth video",
                "video to depth",
                "long video",
                "flicker",
                "side by side",
                "depthcrafter",
                "video depth anything",
            ],
            inputs=[
                model_input(),
                io.Conditioning.Input("positive", tooltip="What the video shows; an empty prompt will do."),
                vae_input(),
                io.Video.Input("video", tooltip="From Load Video, whole or trimmed; or from Create Video."),
                *fit_inputs(),
                seed_input("Seed of the noise that all frames start from."),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default=DEPTH_ALONE,
                    tooltip="depth: alone. side by side: the video on the left, its depth on the right.",
                ),
                io.Combo.Input(
                    "colors",
                    options=list(COLORS),
                    default=GRAY,
                    tooltip="Of the depth, in one range for the whole video: near is bright, or warm in spectral.",
                ),
                io.Boolean.Input(
                    "original_size",
                    default=True,
                    tooltip="Depth in the size of the video. Off: in the size that it was made in.",
                ),
                io.Combo.Input(
                    "depth_files",
                    options=list(FILES),
                    default=NO_FILES,
                    tooltip=(
                        "Numbered files of the depth itself, in a new folder of the output folder. png: 16 bits, with"
                        " one step for all frames. exr: full precision; needs: pip install OpenEXR."
                    ),
                ),
                io.String.Input(
                    "filename_prefix",
                    default="depth/ComfyUI",
                    tooltip=(
                        "Beginning of the name of the folder with depth_files: depth/ComfyUI_00001 and so on. %year%,"
                        " %month%, %day%, %width% and %height% are replaced by their values."
                    ),
                ),
                *steadiness_inputs(),
            ],
            outputs=[
                io.Video.Output(
                    display_name="video",
                    tooltip="The depth, for Save Video: until it is saved, it is a temporary file.",
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        vae: Any,
        video: Any,
        width: int,
        height: int,
        fit: str,
        seed: int,
        layout: str,
        colors: str,
        original_size: bool,
        depth_files: str,
        filename_prefix: str,
        steps: int,
        **steadiness: Any,
    ) -> io.NodeOutput:
        if fit != KEEP:
            check_size(width, height)
        depth_of = ClipDepth("MF Video to Depth Video", model, positive, vae, steps, seed)
        path = make_depth_video(
            Clip(video),
            Steadier(depth_of, steadiness_of(**steadiness)),
            Canvas((height, width), fit, original_size),
            Look(layout, colors, depth_files, filename_prefix),
        )
        shown = UI.PreviewVideo([UI.SavedResult(path.name, "", io.FolderType.temp)])
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), ui=shown)
