"""Run by ComfyUI's Python: splats, passes, layers, lens effects, stereo, cameras and the sky; results as JSON.

Usage: export_node_runs.py PACK_ROOT WORK_FOLDER
"""

import json
import sys
import unittest.mock
from importlib.util import find_spec
from pathlib import Path

from node_calls import defaults, message, run
from pack_loading import load_pack


def main(root: Path, work: Path) -> None:
    load_pack(root)
    import comfy.model_management
    import folder_paths
    import numpy as np
    import OpenEXR
    import torch
    from comfy_extras.nodes_gaussian_splat import File3DToSplat, RenderSplat
    from comfy_extras.nodes_moge import MoGePointMapToMesh, MoGeRender
    from comfy_extras.nodes_video import CreateVideo
    from pack_under_test.mforce_core.scene3d.point_cloud_files import read_ply
    from pack_under_test.nodes.depth_of_field import MFDepthOfField
    from pack_under_test.nodes.depth_passes import MFDepthPasses
    from pack_under_test.nodes.fog import MFFog
    from pack_under_test.nodes.host.geometry import make_geometry
    from pack_under_test.nodes.render_view import MFRenderView
    from pack_under_test.nodes.save_camera import MFSaveCamera
    from pack_under_test.nodes.save_layers import MFSaveLayers
    from pack_under_test.nodes.sky import MFSky
    from pack_under_test.nodes.stereo_pair import MFStereoPair
    from pack_under_test.nodes.to_point_cloud import MFToPointCloud
    from pack_under_test.nodes.to_splats import MFToSplats

    for name in ("input", "output", "temp"):
        (work / name).mkdir()
        getattr(folder_paths, f"set_{name}_directory")(str(work / name))
    results = {}

    def saved(node, **given):
        node.hidden = type("Hidden", (), {"prompt": {"1": {}}, "extra_pnginfo": {"workflow": {"nodes": []}}})
        ui = node.execute(**defaults(node, given)).ui
        files = ui.get("depth_files") or ui["files"]
        return [work / "output" / file["subfolder"] / file["filename"] for file in files]

    size = (48, 64)
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in size), indexing="ij")
    depth = 3.0 - 0.5 * rows + 0.2 * columns
    depth[16:32, 24:40] = 1.5
    valid = torch.ones(size, dtype=torch.bool)
    valid[:4, :4] = False
    small = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(small, size, mode="bilinear").movedim(1, -1)
    geometry = make_geometry(depth[None], valid[None], image, 50.0)
    batch = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in geometry.items()}

    # Splats: core reads the file, and its renderer shows the picture again.
    splat, file, camera = run(MFToSplats, geometry=geometry)
    again = File3DToSplat.execute(file).args[0]
    results["splat_count"] = [splat.positions.shape[1], again.positions.shape[1]]
    results["splat_file"] = {
        name: float((getattr(splat, name) - getattr(again, name)).abs().max())
        for name in ("positions", "scales", "opacities", "sh")
    }
    same = (splat.rotations * again.rotations).sum(-1).abs()
    results["splat_turns"] = float(same.min())
    names = {entry.id for entry in RenderSplat.define_schema().inputs}
    wanted = {"splat": splat, "width": 64, "height": 48, "camera_info": camera, "background": "#000000"}
    options = {"splat_scale": 1.0, "sharpen": 1.0, "headlight_shading": 0.0, "opacity_threshold": 0.0, "frames": 1}
    options["render_style"] = "color"
    shown = run(RenderSplat, **{k: v for k, v in {**wanted, **options}.items() if k in names})[0][0]
    inner = valid.clone()
    inner[[0, 1, -2, -1]] = inner[:, [0, 1, -2, -1]] = False
    inner[:8, :8] = inner[13:35, 21:43] = False
    results["splat_picture"] = float((shown - image[0])[inner].abs().mean())
    results["splat_flipped"] = float((shown.flip(0) - image[0])[inner].abs().mean())
    tall = {name: value[:, :, 20:44] for name, value in geometry.items() if name != "intrinsics"}
    lens = torch.tensor([64 / 24, 1.0, 1.0])[:, None] * geometry["intrinsics"]
    lens[:, :2, 2] = 0.5
    splat, _, camera = run(MFToSplats, geometry={**tall, "intrinsics": lens})
    upright = wanted | {"splat": splat, "width": 24, "camera_info": camera} | options
    shown = run(RenderSplat, **{k: v for k, v in upright.items() if k in names})[0][0]
    results["splat_upright"] = float((shown - image[0, :, 20:44])[inner[:, 20:44]].abs().mean())
    results["splat_index"] = message(MFToSplats, geometry=geometry, batch_index=1)

    # Passes, against core's normals.
    normals, position, occlusion, known = run(MFDepthPasses, geometry=geometry, occlusion_radius=1.0)
    core = MoGeRender.execute(geometry, "normal_opengl").args[0][0] * 2 - 1
    results["normals"] = float(((normals[0] * 2 - 1) * core)[inner].sum(-1).min())
    mesh = MoGePointMapToMesh.execute(geometry, 0, 1, 0.0, True).args[0].vertices[0]
    results["position"] = float(torch.cdist(position[0][valid].double(), mesh.double()).amin(1).max())
    results["occlusion"] = [float(occlusion.min()), float(occlusion.max())]
    results["known"] = bool(torch.equal(known[0] > 0.5, valid))

    # Layers.
    paths = saved(MFSaveLayers, geometry=batch, filename_prefix="x/l", position=True, ambient_occlusion=True,
                  numbering="sequence")  # fmt: skip
    results["layer_files"] = [path.name for path in paths]
    with OpenEXR.File(str(paths[0]), separate_channels=True) as opened:
        channels = {name: channel.pixels for name, channel in opened.channels().items()}
        results["layer_text"] = "workflow" in opened.header()
    results["layers"] = sorted(channels)
    results["layer_depth"] = bool(np.array_equal(channels["Z"], torch.where(valid, depth, 0.0).numpy()))
    results["layer_position"] = float(np.abs(channels["P.Z"] - position[0, ..., 2].numpy()).max())

    # Lens effects.
    sharp = run(MFDepthOfField, geometry=geometry, focus=1.5, strength=0.1)[0][0]
    results["in_focus"] = float((sharp - image[0])[18:30, 26:38].abs().max())
    results["out_of_focus"] = float((sharp - image[0])[36:].abs().mean())
    # The first question comes before the frame; a later one that is answered with yes lies within it.
    checks, ask = [], comfy.model_management.throw_exception_if_processing_interrupted

    def interrupt_at_the_third() -> None:
        checks.append(None)
        comfy.model_management.interrupt_current_processing(len(checks) == 3)
        ask()

    comfy.model_management.throw_exception_if_processing_interrupted = interrupt_at_the_third
    try:
        run(MFDepthOfField, geometry=geometry, focus=1.5, strength=0.3, largest=0.3)
    except comfy.model_management.InterruptProcessingException:
        results["stopped_within_a_frame"] = len(geometry["depth"]) == 1
    comfy.model_management.throw_exception_if_processing_interrupted = ask
    clear = run(MFFog, geometry=geometry, density=0.0)[0]
    results["clear"] = float((clear - image).abs().max())
    thick = run(MFFog, geometry=batch, density=5.0, color="#ff0000")[0]
    results["fog"] = [list(thick.shape), thick[0][~valid][0].tolist(), float(thick[0, -1, 0, 1] > thick[0, 4, -1, 1])]
    results["fog_color"] = message(MFFog, geometry=geometry, color="red")
    results["no_picture"] = message(MFFog, geometry={"depth": depth[None]})

    # Stereo.
    both, left, right, holes_left, holes_right = run(MFStereoPair, geometry=batch, baseline=0.1)
    results["stereo"] = [list(both.shape), bool(torch.equal(both, torch.cat([left, right], 2)))]
    results["stereo_holes"] = [float(holes_left.mean()), float(holes_right.mean())]
    near = right[0, 16:32], left[0, 16:32]
    # The block is at the screen and stays; what is behind it moves outward: right in the right eye.
    results["stereo_screen"] = float((near[0] - near[1])[4:-4, 28:36].abs().mean())
    moved = [float((right[0, 38:46, 12:50] - left[0, 38:46, 12 - s : 50 - s]).abs().mean()) for s in (-3, 0, 3)]
    results["stereo_moves"] = moved
    kept = run(MFStereoPair, geometry=geometry, eyes="left is the picture", edge_softness=0)
    results["stereo_left"] = float((kept[1][0] - image[0])[valid].abs().max())
    swapped = run(MFStereoPair, geometry=geometry, swap=True)
    straight = run(MFStereoPair, geometry=geometry)
    results["stereo_swap"] = bool(torch.equal(swapped[1], straight[2]) and torch.equal(swapped[4], straight[3]))
    anaglyph = run(MFStereoPair, geometry=geometry, layout="anaglyph (red cyan)")[0]
    results["anaglyph"] = list(anaglyph.shape)
    results["stereo_video"] = CreateVideo.execute(both, 12.0).args[0].get_components().images.shape[0]
    comfy.model_management.interrupt_current_processing()
    try:
        run(MFStereoPair, geometry=batch)
    except comfy.model_management.InterruptProcessingException:
        results["interrupted"] = True

    # Cameras: what was rendered is where the file says.
    clip = run(MFRenderView, geometry=geometry, orbit_right=0.0, path="swing", frames=3, amplitude=0.2)[2]
    (text,) = saved(MFSaveCamera, geometry=clip, scale=100.0)
    lines = [list(map(float, line.split())) for line in text.read_text().splitlines()]
    results["chan"] = [text.name, len(lines), lines[0][0], lines[0][1:4] == [0, 0, 0], lines[1][1] / 100]
    results["chan_expected"] = float(-(clip["extrinsics"][1, :3, :3].T @ clip["extrinsics"][1, :3, 3])[0])
    warned = []
    with unittest.mock.patch("pack_under_test.nodes.save_camera.notice", warned.append):
        saved(MFSaveCamera, geometry=clip)
        shifted = clip["intrinsics"].clone()
        shifted[:, 0, 2] += 0.1
        saved(MFSaveCamera, geometry={**clip, "intrinsics": shifted}, format="json (OpenGL matrices)")
        assert not warned
        saved(MFSaveCamera, geometry={**clip, "intrinsics": shifted})
    results["shifted_lens"] = warned
    (matrices,) = saved(MFSaveCamera, geometry=clip, format="json (OpenGL matrices)")
    results["json"] = len(json.loads(matrices.read_text())["frames"])
    usd = message(MFSaveCamera, geometry=clip, format="usda")
    results["usd"] = find_spec("pxr") is not None or "pip install usd-core" in usd
    world = read_ply(
        run(MFToPointCloud, geometry=clip, maps="all", density=1, centre=False)[0].get_data().getvalue()
    ).points
    own = run(MFToPointCloud, geometry=geometry, density=1, centre=False, edge_threshold=100.0)[0]
    own = read_ply(own.get_data().getvalue()).points
    results["clouds_of_views"] = float(torch.cdist(world, own).amin(1).median())

    # Sky.
    outside = depth.clone()
    outside[:10] = 60.0
    open_air = make_geometry(outside[None], valid[None], image, 50.0)
    gone, sky = run(MFSky, geometry=open_air)
    results["sky"] = bool(torch.equal(sky[0] > 0.5, outside > 50) or torch.equal(sky[0] > 0.5, (outside > 50) & valid))
    results["sky_gone"] = bool(not gone["mask"][0, 5:10].any() and gone["mask"][0, 11:].all())
    placed, _ = run(MFSky, geometry=open_air, sky="far away", distance=20.0)
    results["sky_placed"] = float(placed["depth"][0, 6, 6] / outside[10:].max())
    da3 = {"depth": depth[None], "image": image, "mode": "mono", "sky": (outside > 50)[None].float()}
    results["sky_da3"] = float(run(MFSky, geometry=da3, sky="far away", far=0.0)[0]["depth"][0, 6, 6])
    masked = run(MFSky, geometry=geometry, far=0.0, sky_mask=torch.ones(1, 48, 64))[0]["mask"]
    results["sky_mask"] = bool(masked.any())
    print(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
