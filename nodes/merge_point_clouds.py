"""Node: MF Merge Point Clouds."""

from __future__ import annotations

from io import BytesIO

from comfy_api.latest import Types, io

from ..mforce_core.scene3d.point_cloud import PointCloud, merge
from ..mforce_core.scene3d.point_cloud_files import read_ply, to_ply
from .to_point_cloud import NO_THINNING, VOXEL_SIZE, thinned, thinning_inputs, viewpoint

NAME = "MF Merge Point Clouds"


class MFMergePointClouds(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        cloud = io.MultiType.Input(
            "point_cloud",
            types=[io.File3DPLY, io.File3DPointCloudAny],
            tooltip="A PLY file with points: of To Point Cloud, or of Load 3D.",
        )
        return io.Schema(
            node_id="MFMergePointClouds",
            display_name=NAME,
            category="3d",
            description=(
                "Several point clouds in one PLY file, where they are. Colors and normals stay where all of them have "
                "some. For clouds of one camera, switch centre off in To Point Cloud."
            ),
            search_aliases=["modality forcing", "combine point clouds", "join ply", "merge ply", "voxel"],
            inputs=[
                io.Autogrow.Input(
                    "point_clouds",
                    template=io.Autogrow.TemplatePrefix(cloud, prefix="point_cloud", min=1, max=50),
                    tooltip="The clouds to put together.",
                ),
                *thinning_inputs(),
            ],
            outputs=[
                io.File3DPLY.Output(display_name="point_cloud", tooltip="PLY file with the points of all."),
                io.Load3DCamera.Output(
                    display_name="camera",
                    tooltip="A view of the whole cloud, for camera_info of Preview Point Cloud.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        point_clouds: io.Autogrow.Type,
        voxel_thinning: str = NO_THINNING,
        voxel_size: float = VOXEL_SIZE,
    ) -> io.NodeOutput:
        cloud = merge([_read(name, file) for name, file in point_clouds.items()])
        if not len(cloud):
            raise ValueError(f"{NAME}: none of the clouds has a point.")
        try:
            cloud = thinned(cloud, voxel_thinning, voxel_size)
        except ValueError as error:
            raise ValueError(f"{NAME}: {error}") from error
        return io.NodeOutput(Types.File3D(BytesIO(to_ply(cloud)), "ply"), viewpoint(cloud.points))


def _read(name: str, file: Types.File3D) -> PointCloud:
    if file.format != "ply":
        raise ValueError(f"{NAME}: {name} is a {file.format or 'nameless'} file; connect a PLY point cloud.")
    try:
        return read_ply(file.get_data().getvalue())
    except ValueError as error:
        raise ValueError(f"{NAME}: {name}: {error}") from error
