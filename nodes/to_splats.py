"""Node: MF To Gaussian Splats."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from comfy_api.latest import Types, io
from torch import Tensor

from ..mforce_core.depth.edges import scaled_edge_threshold
from ..mforce_core.scene3d.splats import splats_of, to_ply
from .host.geometry import as_moge, check_index, geometry_cameras, geometry_depth, needed_pictures
from .host.images import resize_image
from .host.node import Node
from .host.point_clouds import own_camera
from .host.shared_inputs import edge_threshold_input, geometry_input, other_fov_input


class MFToSplats(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MFToSplats",
            display_name="MF To Gaussian Splats",
            category="3d/splat",
            description=(
                "Gaussian splats from raw depth: one for each pixel, as large as the pixel on its surface and turned"
                " the way the surface is. For core's splat nodes, and as a .ply that every 3DGS program reads."
            ),
            search_aliases=[
                "modality forcing",
                "3dgs",
                "gaussian splatting",
                "depth to splat",
                "ply",
                "3d photo",
                "image to splat",
            ],
            inputs=[
                geometry_input(),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Colors of the splats. If nothing is connected, the geometry's own picture.",
                ),
                other_fov_input(),
                edge_threshold_input(
                    "Leave out pixels where depth jumps by more than this fraction within 3x3 pixels, which would float"
                    " between near and far.",
                    "keeps them all",
                ),
                io.Float.Input(
                    "size",
                    default=1.0,
                    min=0.1,
                    max=10.0,
                    step=0.05,
                    tooltip="Size of the splats: 1 just closes the surface; more closes gaps, less is sharper.",
                ),
                io.Int.Input("batch_index", default=0, min=0, max=4096, tooltip="Which map of a batch to use, from 0."),
            ],
            outputs=[
                io.Splat.Output(display_name="splat", tooltip="For Render Splat and core's other splat nodes."),
                io.File3DSplatAny.Output(
                    display_name="file", tooltip="3DGS .ply for Preview Splat and Save 3D; y down, as 3DGS has it."
                ),
                io.Load3DCamera.Output(
                    display_name="camera",
                    tooltip=(
                        "The picture's own camera: Render Splat shows the picture again with it, at the picture's"
                        " proportions. Preview Splat shows the middle of a picture that is taller than it is wide."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        geometry: dict[str, Any],
        fov_degrees: float,
        edge_threshold: float,
        size: float,
        batch_index: int,
        image: Tensor | None = None,
    ) -> io.NodeOutput:
        geometry = as_moge(geometry)
        depth, valid = geometry_depth(geometry)
        count, height, width = depth.shape
        check_index(batch_index, count)
        pictures = needed_pictures(geometry, image, count)
        camera = geometry_cameras(geometry, depth, fov_degrees)[batch_index]
        picture = pictures[batch_index if len(pictures) > 1 else 0]
        splats = splats_of(
            depth[batch_index],
            valid[batch_index],
            camera,
            resize_image(picture[None], height, width)[0],
            edge_threshold=edge_threshold or scaled_edge_threshold(max(height, width)),
            size=size,
        )
        in_memory = Types.SPLAT(
            splats.positions[None],
            splats.scales[None],
            splats.rotations[None],
            splats.opacities[None, :, None],
            splats.harmonics()[None],
        )
        distance = float(depth[batch_index][valid[batch_index]].median())
        file = Types.File3D(BytesIO(to_ply(splats)), "ply")
        return io.NodeOutput(in_memory, file, own_camera(camera, height, width, distance))
