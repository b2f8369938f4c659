"""Run by ComfyUI's Python: point clouds and views of a geometry, and core's nodes on the same, results as JSON.

Usage: view_node_runs.py PACK_ROOT
"""

import json
import sys
from io import BytesIO
from pathlib import Path

from node_calls import message, run
from pack_loading import load_pack


def main(root: Path) -> None:
    load_pack(root)
    import comfy.model_management
    import comfy.utils
    import torch
    from comfy_api.latest import Types
    from comfy_extras.nodes_moge import MoGeGeometryToFOV, MoGePointMapToMesh, MoGeRender
    from comfy_extras.nodes_video import CreateVideo
    from pack_under_test.mforce_core.scene3d.point_cloud_files import read_ply
    from pack_under_test.nodes.host.geometry import make_geometry
    from pack_under_test.nodes.merge_point_clouds import MFMergePointClouds
    from pack_under_test.nodes.render_view import MFRenderView
    from pack_under_test.nodes.to_point_cloud import MFToPointCloud

    size = (48, 64)
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in size), indexing="ij")
    depth = 3.0 - 0.5 * rows + 0.2 * columns
    depth[16:32, 24:40] = 1.5
    valid = torch.ones(size, dtype=torch.bool)
    valid[:4, :4] = False
    image = torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(0))
    geometry = make_geometry(depth[None], valid[None], image, 50.0)
    results = {}

    def cloud(file):
        return read_ply(file.get_data().getvalue())

    # Every input and output says what it is.
    for node in (MFToPointCloud, MFMergePointClouds, MFRenderView):
        schema = node.GET_SCHEMA()
        silent = [entry.id or entry.display_name for entry in (*schema.inputs, *schema.outputs) if not entry.tooltip]
        results.setdefault("silent", []).extend(silent)
        assert schema.description
        assert schema.search_aliases

    # Core's nodes.
    results["fov"], results["focal_pixels"] = MoGeGeometryToFOV.execute(geometry, "horizontal", "degrees").args
    results["rendered"] = {
        kind: list(MoGeRender.execute(geometry, kind).args[0].shape)
        for kind in ("depth", "depth_colored", "normal_opengl", "mask")
    }
    opengl = MoGeRender.execute(geometry, "normal_opengl").args[0][0] * 2 - 1
    mesh = MoGePointMapToMesh.execute(geometry, 0, 1, 0.08, True).args[0]
    results["mesh_faces"] = mesh.faces.shape[1]

    # To Point Cloud.
    whole = {"density": 1, "edge_threshold": 100.0, "centre": False}
    plain, camera = run(MFToPointCloud, geometry=geometry, **whole)
    points = cloud(plain).points
    # Core's mesh stands on the same points.
    vertices = mesh.vertices[0]
    results["mesh_to_cloud"] = float(torch.cdist(vertices.double(), points.double()).amin(1).max())
    with_normals = cloud(run(MFToPointCloud, geometry=geometry, normals=True, **whole)[0])
    inner = valid.clone()
    inner[[0, -1]] = inner[:, [0, -1]] = False
    inner[:6, :6] = False
    inner[13:35, 21:43] = False
    same = (opengl[inner] * with_normals.normals[inner[valid]]).sum(-1)
    results["normals_against_core"] = float(same.min())
    batch = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in geometry.items()}
    results["points"] = {
        "default": len(cloud(run(MFToPointCloud, geometry=geometry)[0])),
        "whole": len(points),
        "all maps": len(cloud(run(MFToPointCloud, geometry=batch, maps="all", **whole)[0])),
        "relative": len(
            cloud(run(MFToPointCloud, geometry=geometry, voxel_thinning="relative", voxel_size=0.1, **whole)[0])
        ),
        "depth units": len(
            cloud(run(MFToPointCloud, geometry=geometry, voxel_thinning="depth units", voxel_size=0.2, **whole)[0])
        ),
    }
    results["bad_index"] = message(MFToPointCloud, geometry=geometry, batch_index=1)
    results["bad_image"] = message(MFToPointCloud, geometry=batch, image=image.repeat(3, 1, 1, 1))

    # Merge Point Clouds, from nodes and from a file on disk.
    merged, _ = run(MFMergePointClouds, point_clouds={"point_cloud0": plain, "point_cloud1": plain})
    results["merged"] = len(cloud(merged))
    once, view = run(
        MFMergePointClouds, point_clouds={"a": plain, "b": plain}, voxel_thinning="depth units", voxel_size=0.001
    )
    results["merged_thin"] = len(cloud(once))
    results["merged_colors"] = cloud(once).colors is not None
    assert set(view) == set(camera)
    results["bad_format"] = message(MFMergePointClouds, point_clouds={"point_cloud0": Types.File3D("/x/y.glb")})
    results["bad_file"] = message(
        MFMergePointClouds, point_clouds={"point_cloud3": Types.File3D(BytesIO(b"no"), "ply")}
    )

    # Render View.
    seen = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, *_, **__: seen.append((value, total)))
    still = {"orbit_right": 0.0, "edge_softness": 0}
    picture, holes, same_geometry = run(MFRenderView, geometry=geometry, fill="black", **still)
    results["still_error"] = float((picture[0] - image[0])[valid].abs().max())
    results["still_holes"] = bool(torch.equal(holes[0] > 0, ~valid))
    found = same_geometry["depth"][0]
    results["still_depth"] = float((found / depth - 1)[inner].abs().max())
    results["still_missing"] = bool(torch.equal(torch.isfinite(found), valid))
    results["views_fov"] = MoGeGeometryToFOV.execute(same_geometry, "horizontal", "degrees").args[0]
    filled, moved_holes, moved = run(MFRenderView, geometry=geometry)
    black = run(MFRenderView, geometry=geometry, fill="black")[0]
    again = run(MFRenderView, geometry=moved, orbit_right=0.0)[2]
    results["view_of_a_view"] = float((again["extrinsics"] - moved["extrinsics"]).abs().max())
    results["moved_holes"] = float(moved_holes.mean())
    opened = moved_holes[0] > 0
    results["fill_changes_holes_only"] = bool(torch.equal(filled[0][~opened], black[0][~opened]))
    results["fill_is_there"] = float(filled[0][opened].mean())
    assert MoGePointMapToMesh.execute(moved, 0, 1, 0.08, True).args[0].faces.shape[1] > 0
    seen.clear()
    clip, masks, _ = run(MFRenderView, geometry=geometry, path="swing", frames=5)
    results["clip"] = [list(clip.shape), list(masks.shape), seen[-1]]
    results["video_frames"] = CreateVideo.execute(clip, 12.0).args[0].get_components().images.shape[0]
    results["video_in"] = run(MFRenderView, geometry=batch, path="dolly", frames=9)[0].shape[0]
    comfy.model_management.interrupt_current_processing()
    try:
        run(MFRenderView, geometry=geometry, path="orbit", frames=3)
    except comfy.model_management.InterruptProcessingException:
        results["interrupted"] = True
    results["nothing_valid"] = message(MFRenderView, geometry={**geometry, "mask": torch.zeros_like(valid)[None]})
    results["no_picture"] = message(MFRenderView, geometry={"depth": geometry["depth"]})
    results["no_depth"] = message(MFRenderView, geometry={"points": geometry["points"]})
    results["many_pictures"] = message(MFRenderView, geometry=geometry, image=image.repeat(3, 1, 1, 1))

    # Cameras of the viewer: of core's nodes, and of our own To Point Cloud.
    from comfy_extras.nodes_gaussian_splat import CreateCameraInfo, _camera_basis
    from pack_under_test.mforce_core.scene3d.viewer import AS_IT_IS, shot_of

    aim = {"mode": {"mode": "orbit", "yaw": 20.0, "pitch": 10.0, "distance": 3.0}, "target_x": 0.1, "target_y": 0.0}
    (made,) = CreateCameraInfo.execute(**aim, target_z=-3.0, roll=15.0, fov=40.0).args
    eye, _, *axes = _camera_basis(made, torch.device("cpu"))
    shot = shot_of(made, AS_IT_IS)
    results["core_axes"] = float((shot.pose.rotation - torch.stack(axes, 1)).abs().max())
    results["core_eye"] = float((shot.pose.position - eye).abs().max())
    own = {"position": {"x": 0, "y": 0, "z": 0}, "target": {"x": 0, "y": 0, "z": -3}, "fov": 38.549, "zoom": 1}
    scene = {"viewer": "mesh or splat", "edge_softness": 0, "fill": "black"}
    shown = run(MFRenderView, geometry=geometry, camera_info=own, **scene)[0]
    results["own_camera"] = float((shown[0] - image[0])[inner].abs().mean())
    centered, looked = run(MFToPointCloud, geometry=geometry)
    by_default = run(MFRenderView, geometry=geometry, camera_info=looked)[0]
    by_file = run(MFRenderView, geometry=geometry, camera_info=looked, point_cloud=centered)[0]
    results["cloud_camera"] = float((by_default - by_file).abs().max())
    uncentered = run(MFToPointCloud, geometry=geometry, centre=False)[0]
    by_other = run(MFRenderView, geometry=geometry, camera_info=looked, point_cloud=uncentered)[0]
    results["uncentered_camera"] = float((by_default - by_other).abs().mean())
    travel = run(MFRenderView, geometry=geometry, camera_info=own, camera_to=made, frames=4, **scene)
    end = run(MFRenderView, geometry=geometry, camera_info=made, **scene)[0]
    results["travel"] = [list(travel[0].shape), float((travel[0][0] - shown[0]).abs().max())]
    results["travel_end"] = float((travel[0][3] - end[0]).abs().mean())
    from_own = run(MFRenderView, geometry=geometry, camera_to=made, frames=2, **scene)[0]
    results["from_own"] = float((from_own[0] - image[0])[inner].abs().max())
    places = travel[2]["extrinsics"]
    results["extrinsics"] = float((places[3, :3, :3].T - shot.pose.rotation).abs().max())
    # Views of one scene from two places: a camera that was aimed at the cloud of both sees the same from either map.
    aside = torch.eye(4).repeat(2, 1, 1)
    aside[0, 0, 3], aside[1, 0, 3] = -0.05, 0.25
    flat = torch.full((1, 48, 64), 3.0)
    views = []
    for place in aside:
        # A wall whose color is its place in the world, x from -1.5 to 1.5.
        wall = make_geometry(flat, flat > 0, torch.zeros(1, 48, 64, 3), 50.0)
        across = (wall["points"][..., 0] - place[0, 3]) / 3.0 + 0.5
        views.append({**wall, "image": across[..., None].repeat(1, 1, 1, 3).clamp(0, 1)})
    both = {name: torch.cat([one[name] for one in views]) for name in views[0]} | {"extrinsics": aside}
    world, aimed = run(MFToPointCloud, geometry=both, maps="all")
    all_maps = {"viewer": "point cloud of all maps", "edge_softness": 0, "fill": "black"}
    frames, holes, seen_geometry = run(MFRenderView, geometry=both, camera_info=aimed, **all_maps)
    shared = (holes < 0.5).all(0)
    results["world_views"] = [float(shared.float().mean()), float((frames[0] - frames[1])[shared].abs().max())]
    results["world_places"] = float((seen_geometry["extrinsics"][0] - seen_geometry["extrinsics"][1]).abs().max())
    by_world = run(MFRenderView, geometry=both, camera_info=aimed, point_cloud=world, **all_maps)[0]
    results["world_file"] = float((by_world - frames).abs().max())
    ways = run(MFRenderView, geometry=both, camera_to=aimed, **all_maps)[2]["extrinsics"]
    results["world_way"] = [
        float((ways[0] - aside[0]).abs().max()),
        float((ways[1] - seen_geometry["extrinsics"][1]).abs().max()),
    ]
    orthographic = {**own, "cameraType": "orthographic"}
    results["orthographic"] = message(MFRenderView, geometry=geometry, camera_info=orthographic)
    # Soft depth that was enlarged is torn where it was at its own size.
    ramp = torch.where(columns > 0.3, 2.0, 1.0)[None]
    soft = torch.nn.functional.interpolate(ramp[:, None], scale_factor=8, mode="bilinear")[:, 0]
    large = make_geometry(soft, soft > 0, torch.rand(1, 384, 512, 3), 50.0)
    torn = [run(MFRenderView, geometry=one)[1].mean() for one in (large, {**large, "enlarged": 8.0})]
    results["torn"] = [float(share) for share in torn]
    print(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
