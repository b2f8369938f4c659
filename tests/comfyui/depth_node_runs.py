"""Run by ComfyUI's Python: the depth nodes on ComfyUI's own objects, results as JSON.

Usage: depth_node_runs.py PACK_ROOT WORK_FOLDER
"""

import json
import sys
from pathlib import Path

from pack_loading import load_pack


def main(root: Path, work: Path) -> None:
    load_pack(root)
    import folder_paths
    import numpy as np
    import torch
    from comfy.cli_args import args
    from comfy_extras.nodes_depth_anything_3 import DA3Render
    from comfy_extras.nodes_moge import MoGeGeometryToFOV, MoGePointMapToMesh, MoGeRender
    from pack_under_test.mforce_core.placement import place
    from pack_under_test.nodes.depth_detokenize import MFDepthDetokenize
    from pack_under_test.nodes.depth_map_to_image import MFDepthToImage
    from pack_under_test.nodes.encode_depth import MFEncodeDepth
    from pack_under_test.nodes.host.depth_files import input_depth_files
    from pack_under_test.nodes.host.geometry import as_moge, make_geometry
    from pack_under_test.nodes.host.image_fit import fit_image
    from pack_under_test.nodes.host.shared_inputs import DEPTH
    from pack_under_test.nodes.load_depth import MFLoadDepth
    from pack_under_test.nodes.restore_size import MFRestoreSize
    from pack_under_test.nodes.save_depth import MFSaveDepth
    from PIL import Image

    from nodes import LoadImage

    for name in ("input", "output", "temp"):
        (work / name).mkdir()
        getattr(folder_paths, f"set_{name}_directory")(str(work / name))
    results = {}

    def run(node, *inputs, **named):
        return node.execute(*inputs, **named).args

    def message(call) -> str:
        try:
            call()
        except ValueError as problem:
            return str(problem)
        return ""

    def error(found, wanted) -> float:
        return float((found - wanted).norm() / wanted.norm())

    # A slanted floor with a near disc before it, and a hole: meters.
    def scene(rows, columns):
        y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
        floor = 2.0 / (1.1 - y)
        disc = ((y - 0.5) * rows) ** 2 + ((x - 0.5) * columns) ** 2 < (0.2 * min(rows, columns)) ** 2
        return torch.where(disc, torch.tensor(0.7), floor)[None]

    maps = scene(48, 64)
    holes = maps.clone()
    holes[0, :3, :5] = 0
    geometry = make_geometry(holes, holes > 0, torch.rand(1, 48, 64, 3), 60.0)

    # Files: what is saved is loaded again; the numbers of the files themselves are checked elsewhere.
    MFSaveDepth.hidden = type("Hidden", (), {"prompt": {"1": {}}, "extra_pnginfo": {"workflow": {"nodes": []}}})
    for format in ("png (16-bit)", "npy", "exr"):
        for values in ("depth", "disparity (1 / depth)", "normalised (near 0, far 1)"):
            ui = MFSaveDepth.execute(geometry, f"{format[:3]}/{values[:4]}", format, values, 0.0, 0.0).ui
            (saved,) = ui["depth_files"]
            assert (work / "temp" / ui["images"][0]["filename"]).is_file()
            path = work / "output" / saved["subfolder"] / saved["filename"]
            path.replace(work / "input" / path.name)
            meaning = "disparity (near is bright)" if format == "npy" and values[:4] == "disp" else "as the file says"
            loaded, image, valid = run(MFLoadDepth, path.name, meaning)
            known = valid > 0.5
            assert torch.equal(known, holes > 0), (format, values)
            if format == "npy" and values[:4] == "norm":
                continue
            assert torch.equal(image[..., 0], torch.where(known, loaded["depth"], torch.zeros(()))), (format, values)
            results[f"{format} {values}"] = error(loaded["depth"][known], holes[known])
        assert path.name in input_depth_files()
    # FFmpeg, which ComfyUI's Load Image reads with, has a reader of its own.
    MFSaveDepth.execute(geometry, "colors", "exr", "depth", 0.0, 0.0, "RGB")
    seen, transparent = LoadImage().load_image("colors_00001.exr [output]")
    results["exr in Load Image"] = error(seen[..., 1], holes)
    assert torch.equal(transparent < 0.5, holes > 0)
    results["png text"] = sorted(Image.open(work / "input" / "dept_00001.png").text)

    args.disable_metadata = True
    MFSaveDepth.execute(geometry, "anonymous", "png (16-bit)", "depth", 0.0, 0.0)
    results["anonymous text"] = sorted(Image.open(work / "output" / "anonymous_00001.png").text)
    args.disable_metadata = False

    # Batches are numbered and counting goes on.
    two = torch.cat([maps, 2 * maps])[..., None].expand(-1, -1, -1, 3)
    for _ in range(2):
        MFSaveDepth.execute(two, "seq", "npy", "depth", 0.0, 0.0)
    results["numbers"] = sorted(path.name for path in (work / "output").glob("seq*"))
    assert np.array_equal(np.load(work / "output" / "seq_00004.npy"), (2 * maps[0]).numpy())

    # %batch_num% in a name: a second run overwrites nothing.
    two_maps = torch.cat([maps, 2 * maps])[..., None]
    for _ in range(2):
        MFSaveDepth.execute(two_maps, "numbered/map%batch_num%", "npy", "depth", 0.0, 0.0)
    results["batch numbers"] = sorted(path.name for path in (work / "output" / "numbered").iterdir())

    # A changed file has another fingerprint.
    np.save(work / "input" / "changes.npy", maps[0].numpy())
    first = MFLoadDepth.fingerprint_inputs("changes.npy")
    assert first == MFLoadDepth.fingerprint_inputs(file="changes.npy", meaning="x")
    np.save(work / "input" / "changes.npy", maps[0, :8].numpy())
    results["fingerprint changes"] = first != MFLoadDepth.fingerprint_inputs("changes.npy")

    # The unit comes back.
    def encode(depth, width=64, height=48, fit="crop", meaning=DEPTH, **more):
        return run(MFEncodeDepth, depth, meaning, 10.0, width, height, fit, **more)[0]

    latent = encode(geometry)
    decoded = run(MFDepthDetokenize, latent, fov_degrees=60.0)
    results["unit"] = error(decoded[0]["depth"][holes > 0], holes[holes > 0])
    bare = {key: value for key, value in latent.items() if key != "depth_scale"}
    relative = run(MFDepthDetokenize, bare, fov_degrees=60.0)
    assert all(torch.equal(a, b) for a, b in zip(decoded[1:4], relative[1:4], strict=True))
    assert torch.equal(relative[4] * latent["depth_scale"], decoded[4])

    # Depth as core's other nodes make it.
    sky = torch.zeros_like(maps)
    sky[0, :4] = 0.9
    mono = {"depth": maps, "image": torch.rand(1, 48, 64, 3), "mode": "mono", "sky": sky}
    run(DA3Render, mono, {"output": "sky_mask", "colored": False})
    results["da3 sky"] = bool(torch.equal(encode(mono)["depth_valid"], sky < 0.5))
    camera = torch.tensor([[504 * 0.8, 0, 252], [0, 504 * 0.8, 189], [0, 0, 1]]).expand(1, 2, 3, 3)
    multi = {
        "depth": maps.repeat(2, 1, 1), "image": torch.rand(2, 48, 64, 3), "mode": "multiview", "intrinsics": camera,
        "extrinsics": torch.eye(4)[None, None, :, :].expand(1, 2, 4, 4), "confidence": torch.rand(2, 48, 64),
    }  # fmt: skip
    moge = as_moge(multi)
    horizontal, _ = run(MoGeGeometryToFOV, moge, "horizontal", "degrees")
    vertical, _ = run(MoGeGeometryToFOV, moge, "vertical", "degrees")
    results["da3 fov"] = [horizontal, vertical]
    assert encode(multi)["samples"].shape[0] == 2
    no_camera = multi | {"intrinsics": torch.eye(3)[None, None].expand(1, 2, 3, 3)}
    assert "intrinsics" not in as_moge(no_camera)
    panorama = {"depth": maps, "mask": maps > 1, "image": torch.rand(1, 48, 64, 3), "points": torch.rand(1, 48, 64, 3)}
    assert torch.equal(encode(panorama)["depth_valid"], maps > 1)

    # Pictures of depth.
    def picture(
        depth=geometry, colors="gray", values="1 / depth", invert=False, near=0.0, far=0.0, clip=0.0, same=False
    ):
        return run(MFDepthToImage, depth, colors, values, invert, near, far, clip, same)

    known = holes > 0
    gray, valid = picture()
    wanted = 1 / holes[known]
    wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min())
    results["picture 1 / depth"] = error(gray[..., 1][known], wanted)
    linear = picture(values="depth", invert=True, near=1.0, far=4.0)[0][..., 0]
    results["picture depth"] = error(linear[known], ((holes[known] - 1) / 3).clamp(0, 1))
    assert gray[~known].abs().max() == 0
    assert linear[~known].abs().max() == 0
    assert torch.equal(valid > 0.5, known)
    defaults = picture(clip=1.0)[0]
    results["picture like Detokenize"] = error(defaults, decoded[2])
    core = run(MoGeRender, geometry, "depth")[0]
    results["picture like MoGeRender"] = float((picture(clip=0.1)[0] - core).abs().mean())
    for colors in ("turbo", "viridis", "magma", "inferno", "plasma", "spectral"):
        colored = picture(colors=colors)[0]
        assert colored.shape == (1, 48, 64, 3)
        assert colored[~known].abs().max() == 0
    pair = picture(two, same=True)[0], picture(two)[0]
    results["same range"] = [float((one[0] - one[1]).abs().max()) for one in pair]

    # There and back, for every fit: depth lies on the photo's pixels and the camera sees the same points.
    photo = (240, 320)
    wanted = scene(*photo)
    colors = (torch.arange(320) / 320)[None, None, :, None].expand(1, 240, 320, 3)
    for fit in ("letterbox", "crop", "stretch", "keep aspect", "keep size"):
        whole = make_geometry(wanted, wanted > 0, colors, 60.0)
        given = encode(whole, 128, 128, fit)
        placement = given["placement"]
        seen = fit_image(colors, placement)
        back = run(MFDepthDetokenize, given, seen, 60.0)[0]
        fitted = run(MFRestoreSize, back, given)[0]
        inside = placement.uncut(torch.ones(placement.crop[2:]), 0.0)[None] > 0
        assert torch.equal(fitted["mask"], inside), fit
        assert fitted["depth"].shape == wanted.shape
        gap = (fitted["depth"] / wanted).log().abs()[inside]
        fov, _ = run(MoGeGeometryToFOV, fitted, "horizontal", "degrees")
        pixels = fitted["intrinsics"][0] * torch.tensor([320.0, 240.0, 1.0])[:, None]
        results[f"restore {fit}"] = {
            "median": float(gap.median()),
            "off": float((gap > 0.05).float().mean()),
            "between": float(((fitted["depth"] > 0.75) & (fitted["depth"] < 1.7)).float().mean()),
            "fov": fov,
            "square": float(pixels[0, 0] / pixels[1, 1]),
            "center": (fitted["intrinsics"][0, :2, 2] - 0.5).abs().max().item(),
            "colors": float((fitted["image"] - colors)[inside].abs().mean()),
        }
        run(MoGePointMapToMesh, fitted, 0, 1, 0.04, True)
        image = run(MFRestoreSize, seen, given)[0]
        mask = run(MFRestoreSize, seen[..., 0], given)[0]
        assert image.shape == colors.shape
        assert mask.shape == wanted.shape
        assert torch.equal(image[..., 0], mask)
        sharp = run(MFRestoreSize, back, given, image=colors)[0]["image"]
        assert torch.equal(sharp, colors)

    # Sparse points survive any fit.
    sparse = torch.zeros(1, 240, 320)
    sparse[0, 7::48, 9::64] = torch.rand(5, 5) + 1
    for fit in ("letterbox", "stretch", "keep aspect"):
        assert int(encode(sparse[..., None], 128, 128, fit)["depth_valid"].sum()) == 25, fit

    shapes = ((240, 320), (1080, 1920), (64, 64), (10, 4000))
    results["keep aspect"] = [place(shape, (128, 128), "keep aspect").canvas for shape in shapes]

    Image.new("L", (8, 8), 9).save(work / "input" / "eight.png")
    results["messages"] = {
        "two masks": message(lambda: encode(geometry, valid=torch.ones(2, 48, 64))),
        "no depth": message(lambda: encode({"points": maps})),
        "nothing valid": message(lambda: encode(geometry, valid=torch.zeros(1, 48, 64))),
        "two images": message(lambda: run(MFDepthDetokenize, latent, torch.rand(2, 48, 64, 3))),
        "save nothing": message(lambda: MFSaveDepth.execute(torch.zeros(1, 8, 8, 3), "x", "npy", "depth", 0.0, 0.0)),
        "save near far": message(
            lambda: MFSaveDepth.execute(maps[..., None], "x", "npy", "normalised (near 0, far 1)", 5.0, 2.0)
        ),
        "picture near far": message(lambda: picture(near=5.0, far=2.0)),
        "picture beyond": message(lambda: picture(near=500.0)),
        "restore other": message(lambda: run(MFRestoreSize, torch.rand(1, 8, 8, 3), latent)),
        "restore no fit": message(lambda: run(MFRestoreSize, maps, {"samples": latent["samples"]})),
        "load 8 bits": message(lambda: run(MFLoadDepth, "eight.png", DEPTH)),
        "load gone": MFLoadDepth.validate_inputs("gone.exr"),
        "keep size": message(lambda: encode(torch.rand(1, 50, 64, 3), fit="keep size")),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
