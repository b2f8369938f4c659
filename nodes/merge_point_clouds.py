"""Node: MF Merge Point Clouds."""

from __future__ import annotations

from comfy_api.latest import io

from ..mforce_core.scene3d.point_cloud import merge
from .host.node import Node
from .host.point_clouds import ply_file, read_ply_file, thinned, viewer_camera
from .host.shared_inputs import NO_THINNING, VOXEL_SIZE, thinning_inputs, viewer_camera_output


class MFMergePointClouds(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        cloud = io.MultiType.Input(
            "point_cloud",
            types=[io.File3DPLY, io.File3DPointCloudAny],
            tooltip="A PLY file with points, from To Point Cloud or Load 3D.",
        )
        return io.Schema(
            node_id="MFMergePointClouds",
            display_name="MF Merge Point Clouds",
            category="3d",
            description=(
                "Put several point clouds into one PLY file, each where it is. Colors and normals are kept if all of"
                " the clouds have them. For clouds from one camera, switch centre off in To Point Cloud."
            ),
            search_aliases=["modality forcing", "combine point clouds", "join ply", "merge ply", "voxel"],
            inputs=[
                io.Autogrow.Input(
                    "point_clouds",
                    template=io.Autogrow.TemplatePrefix(cloud, prefix="point_cloud", min=1, max=50),
                    tooltip="The clouds to combine.",
                ),
                *thinning_inputs(),
            ],
            outputs=[
                io.File3DPLY.Output(display_name="point_cloud", tooltip="PLY file with the points of all clouds."),
                viewer_camera_output(),
            ],
        )

    @classmethod
    def execute(
        cls,
        point_clouds: io.Autogrow.Type,
        voxel_thinning: str = NO_THINNING,
        voxel_size: float = VOXEL_SIZE,
    ) -> io.NodeOutput:
        cloud = merge([read_ply_file(name, file) for name, file in point_clouds.items()])
        if not len(cloud):
            raise ValueError("none of the clouds has a point.")
        cloud = thinned(cloud, voxel_thinning, voxel_size)
        return io.NodeOutput(ply_file(cloud), viewer_camera(cloud.points))
