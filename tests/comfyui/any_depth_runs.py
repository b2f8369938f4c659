"""Run by ComfyUI's Python: depth of every kind in, geometry, clouds and sequences out, results as JSON.

Usage: any_depth_runs.py PACK_ROOT WORK_FOLDER
"""

import json
import sys
from pathlib import Path

from node_calls import message, run
from pack_loading import load_pack


def main(root: Path, work: Path) -> None:
    load_pack(root)
    import folder_paths
    import numpy as np
    import torch
    from comfy_extras.nodes_depth_anything_3 import DA3GeometryToMesh, DA3Render
    from comfy_extras.nodes_moge import MoGeGeometryToFOV, MoGePointMapToMesh
    from pack_under_test.mforce_core.placement import place
    from pack_under_test.mforce_core.scene3d.point_cloud_files import read_ply
    from pack_under_test.nodes.depth_to_geometry import MFDepthToGeometry
    from pack_under_test.nodes.host.geometry import as_moge, make_geometry
    from pack_under_test.nodes.host.shared_inputs import DEPTH, DISPARITY
    from pack_under_test.nodes.load_depth import MFLoadDepth
    from pack_under_test.nodes.render_view import MFRenderView
    from pack_under_test.nodes.restore_size import MFRestoreSize
    from pack_under_test.nodes.save_depth import MFSaveDepth
    from pack_under_test.nodes.to_point_cloud import MFToPointCloud

    for name in ("input", "output", "temp"):
        (work / name).mkdir()
        getattr(folder_paths, f"set_{name}_directory")(str(work / name))
    results = {}

    size = (48, 64)
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in size), indexing="ij")
    depth = (3.0 - 0.5 * rows + 0.2 * columns)[None]
    image = torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(0))
    moge = make_geometry(depth, depth > 2.4, image, 50.0)
    whole = {"density": 1, "edge_threshold": 100.0, "centre": False}

    def cloud(geometry, **given):
        return read_ply(run(MFToPointCloud, geometry=geometry, **whole, **given)[0].get_data().getvalue())

    def points(z, fov):
        """The release's formula, in float64."""
        focal = 0.5 * size[1] / np.tan(np.radians(fov) / 2)
        v, u = np.mgrid[: size[0], : size[1]] + 0.5
        z = np.asarray(z, dtype=np.float64)
        found = np.stack([(u - size[1] / 2) / focal * z, -(v - size[0] / 2) / focal * z, -z], -1)
        return found[np.isfinite(z)]

    # Every kind of depth into a cloud.
    sky = torch.zeros(1, *size)
    sky[0, :5] = 0.9
    mono = {"depth": depth, "image": image, "mode": "mono", "sky": sky}
    numbers = depth[..., None].expand(-1, -1, -1, 3)
    near = (1 / depth - 1 / 8.0) / (1 / depth.min() - 1 / 8.0)  # stretched: black would be 8 units away
    ratio = float(8.0 / depth.min())
    masked = torch.where(moge["mask"], depth, torch.nan)[0]
    cases = {
        "IMAGE of depth": ({"depth": numbers, "meaning": DEPTH, "fov_degrees": 70.0}, depth[0], 70.0),
        "IMAGE without camera": ({"depth": numbers, "meaning": DEPTH}, depth[0], 65.0),
        "IMAGE of disparity": (
            {
                "depth": near[..., None].expand(-1, -1, -1, 3),
                "meaning": DISPARITY,
                "far_to_near": ratio,
                "fov_degrees": 70.0,
            },
            depth[0] / depth.min(),
            70.0,
        ),
        "MoGe": ({"depth": moge}, masked, 50.0),
        "MoGe, other camera": ({"depth": moge, "fov_degrees": 80.0}, masked, 80.0),
        "DA3": ({"depth": mono, "fov_degrees": 60.0}, torch.where(sky[0] < 0.5, depth[0], torch.nan), 60.0),
    }
    for name, (given, wanted, fov) in cases.items():
        (geometry,) = run(MFDepthToGeometry, image=image, **given)
        found, wanted = cloud(geometry), points(wanted, fov)
        assert found.points.shape == wanted.shape, name
        results[f"cloud {name}"] = float(np.abs(found.points.numpy() - wanted).max())
        assert MoGePointMapToMesh.execute(geometry, 0, 1, 0.08, True).args[0].faces.shape[1] > 1000, name
        assert abs(MoGeGeometryToFOV.execute(geometry, "horizontal", "degrees").args[0] - fov) < 1e-3, name
    (bare,) = run(MFDepthToGeometry, depth=numbers)
    results["picture without one"] = bool(torch.equal(bare["image"][..., 0], bare["image"][..., 2]))
    results["empty"] = message(MFDepthToGeometry, depth=torch.zeros(1, 8, 8, 3))

    # A DA3 geometry straight into the nodes.
    results["DA3 cloud"] = len(cloud(mono))
    results["DA3 view"] = list(run(MFRenderView, geometry=mono)[0].shape)
    placement = place(size, (32, 32), "letterbox")
    canvas = {"depth": torch.ones(1, 32, 32), "image": torch.rand(1, 32, 32, 3), "mode": "mono"}
    latent = {"samples": torch.zeros(1, 1, 2, 2), "placement": placement}
    (restored,) = run(MFRestoreSize, content=canvas, latent=latent)
    results["enlarged"] = [
        as_moge(restored).get("enlarged"),
        run(MFDepthToGeometry, depth=restored)[0].get("enlarged"),
        run(MFDepthToGeometry, depth={**moge, "enlarged": 3.0})[0].get("enlarged"),
    ]
    results["DA3 restored"] = list(DA3Render.execute(restored, {"output": "sky_mask", "colored": False}).args[0].shape)

    # Two DA3 views of one wall, five units before the first camera: the second stands to the right and looks left.
    angle, focal = np.radians(20.0), 0.8 * size[1]
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    eye = np.array([1.5, 0.0, 0.0])
    places = np.stack([np.eye(4), np.eye(4)])
    places[1, :3, :3], places[1, :3, 3] = turn, -turn @ eye
    v, u = np.mgrid[: size[0], : size[1]] + 0.5
    rays = np.stack([(u - size[1] / 2) / focal, (v - size[0] / 2) / focal, np.ones(size)], -1)
    second = 5.0 / (rays @ turn)[..., 2]
    camera = torch.tensor([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1]])
    multi = {
        "depth": torch.tensor(np.stack([np.full(size, 5.0), second])).float(),
        "image": image.repeat(2, 1, 1, 1), "mode": "multiview",
        "intrinsics": camera.expand(1, 2, 3, 3), "extrinsics": torch.tensor(places[:, :3])[None].float(),
    }  # fmt: skip
    for name, geometry in (("DA3 views", multi), ("DA3 views, converted", run(MFDepthToGeometry, depth=multi)[0])):
        both = cloud(geometry, maps="all", normals=True)
        results[f"{name}: wall"] = float((both.points[:, 2] + 5).abs().max())
        results[f"{name}: normals"] = float((both.normals - torch.tensor([0.0, 0.0, 1.0])).abs().max())
        core = [DA3GeometryToMesh.execute(multi, i, 1, 0.0, 0.0, False, False).args[0].vertices[0] for i in (0, 1)]
        # Core puts pixels at whole numbers: half a pixel off, each way.
        gap = torch.cdist(torch.cat(core).double(), both.points.double()).amin(1).max()
        results[f"{name}: core, in pixels"] = float(gap) * focal / 5.0

    # Sequences and folders.
    clip = torch.cat([depth + step for step in range(3)])[..., None]
    saved = {}
    for format in ("npy", "tiff (32-bit)", "png (16-bit)"):
        ui = MFSaveDepth.execute(clip, "shot/z", format, DEPTH[:5], 0.0, 0.0, numbering="sequence").ui
        saved[format] = [file["filename"] for file in ui["depth_files"]]
    results["sequence names"] = saved
    again = MFSaveDepth.execute(clip, "shot/z", "npy", "depth", 0.0, 0.0, numbering="sequence", first_frame=5).ui
    results["next run"] = again["depth_files"][0]["filename"]
    (work / "output" / "shot").rename(work / "input" / "shot")
    results["listed"] = [name for name in MFLoadDepth.define_schema().inputs[0].options if "#" in name]
    for format, names in saved.items():
        pattern = "shot/" + names[0].replace("1001", "####")
        assert MFLoadDepth.validate_inputs(pattern) is True
        geometry, _, valid = run(MFLoadDepth, file=pattern)
        assert bool(valid.all())
        results[f"sequence {format}"] = float((geometry["depth"] / clip[..., 0] - 1).abs().max())
        some = run(MFLoadDepth, file=pattern, first_frame=1002, last_frame=1003)[0]["depth"]
        assert torch.equal(some, geometry["depth"][1:])
    pattern = "shot/" + saved["npy"][0].replace("1001", "####")
    before = MFLoadDepth.fingerprint_inputs(pattern)
    (work / "input" / "shot" / saved["npy"][1]).unlink()
    results["fingerprint"] = before != MFLoadDepth.fingerprint_inputs(pattern)
    results["gap"] = message(MFLoadDepth, file=pattern)
    results["held"] = run(MFLoadDepth, file=pattern, missing_frames="hold")[0]["depth"].shape[0]
    results["skipped"] = run(MFLoadDepth, file=pattern, missing_frames="skip")[0]["depth"].shape[0]
    np.save(work / "input" / "shot" / saved["npy"][1], np.ones((8, 8), np.float32))
    results["sizes"] = message(MFLoadDepth, file=pattern)
    results["no sequence"] = MFLoadDepth.validate_inputs("shot/gone.####.npy")
    print(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
