"""Run by ComfyUI's Python: MF Extend View and MF Explore on nano, results as JSON.

Usage: explore_runs.py PACK_ROOT
"""

import json
import sys
from pathlib import Path

from node_calls import message, run
from pack_loading import load_pack

FEW = {"steps": 2, "depth_steps": 1}


def main(root: Path) -> None:
    load_pack(root)
    import comfy.model_management
    import comfy.utils
    import torch
    from pack_under_test.mforce_core.scene3d.point_cloud_files import read_ply
    from pack_under_test.nodes import extend_view
    from pack_under_test.nodes.explore import MFExplore
    from pack_under_test.nodes.extend_view import MFExtendView
    from pack_under_test.nodes.host.geometry import make_geometry
    from pack_under_test.nodes.load_model import NANO, NANO_FAST, MFLoadModel
    from pack_under_test.nodes.merge_point_clouds import MFMergePointClouds
    from pack_under_test.nodes.render_view import MFRenderView
    from pack_under_test.nodes.to_point_cloud import MFToPointCloud

    from nodes import CLIPTextEncode

    size = (112, 128)
    depth = torch.full((1, *size), 4.0)
    image = torch.tensor([0.2, 0.4, 0.8]).expand(1, *size, 3).clone()
    depth[:, 40:90, 50:80], image[:, 40:90, 50:80] = 2.0, torch.tensor([0.9, 0.3, 0.1])
    geometry = make_geometry(depth, torch.ones_like(depth, dtype=torch.bool), image, 60.0)
    model, clip, vae = MFLoadModel.execute(NANO).result
    empty = CLIPTextEncode().encode(clip, "")[0]
    given = {"model": model, "positive": empty, "negative": empty, "vae": vae, **FEW}
    results = {"silent": []}

    def fill(node, **own):
        return run(node, **{**given, **own})

    def refusal(node, **own):
        return message(node, **{**given, **own})

    def points(file):
        return read_ply(file.get_data().getvalue()).points

    for node in (MFExtendView, MFExplore):
        schema = node.GET_SCHEMA()
        results["silent"] += [
            entry.id or entry.display_name for entry in (*schema.inputs, *schema.outputs) if not entry.tooltip
        ]
        assert schema.description
        assert schema.search_aliases

    # One view: what is known stays, what is not is made in both streams.
    picture, holes, view = run(MFRenderView, geometry=geometry, orbit_right=0.0, move_right=0.08, edge_softness=0)
    whole, made, new = fill(MFExtendView, geometry=view, holes=holes)
    known = holes[0] == 0
    results["holes"] = float(holes.mean())
    results["known_color"] = float((whole - picture)[0][known].abs().max())
    results["known_depth"] = float((made["depth"] / view["depth"] - 1)[0][known].abs().max())
    results["made_color"] = float((whole - picture)[0][~known].abs().mean())
    results["made_everywhere"] = bool(made["mask"].all() and torch.isfinite(made["depth"]).all())
    results["same_camera"] = bool(torch.equal(made["extrinsics"], view["extrinsics"]))
    results["repeatable"] = bool(torch.equal(whole, fill(MFExtendView, geometry=view, holes=holes)[0]))
    results["seed_matters"] = not torch.equal(whole, fill(MFExtendView, geometry=view, holes=holes, seed=5)[0])
    # The wall's new points lie in the first camera's axes, at the wall's distance.
    results["new_points"], results["new_distance"] = len(points(new)), -float(points(new)[:, 2].median())
    old = run(MFToPointCloud, geometry=geometry, centre=False)[0]
    merged = MFMergePointClouds.execute({"point_cloud0": old, "point_cloud1": new}).args[0]
    results["merged"] = len(points(merged)) == len(points(old)) + len(points(new))
    still = run(MFRenderView, geometry=geometry, orbit_right=0.0)
    noticed, extend_view.notice = [], lambda sentence: noticed.append(sentence)
    same, _, none = fill(MFExtendView, geometry=still[2], holes=still[1])
    results["no_hole"] = [float((same - still[0]).abs().max()), len(points(none)), noticed.pop()]
    merged = MFMergePointClouds.execute({"point_cloud0": old, "point_cloud1": none}).args[0]
    results["merged_with_none"] = len(points(merged)) == len(points(old))

    # Left to the model, the steps are its own.
    def steps_of(loaded):
        asked, counted = [], loaded.clone()

        def counting(apply, passed):
            asked.append(passed)
            return apply(passed["input"], passed["timestep"], **passed["c"])

        counted.set_model_unet_function_wrapper(counting)
        fill(MFExtendView, geometry=view, holes=holes, model=counted, steps=0, depth_steps=0)
        return len(asked)

    results["own_steps"] = [steps_of(model), steps_of(MFLoadModel.execute(NANO_FAST).args[0])]

    # A batch: the second view from one place has nothing left to make, one from farther on only what is beyond.
    def batch(*moves):
        seen = [run(MFRenderView, geometry=geometry, orbit_right=0.0, move_right=at, edge_softness=0) for at in moves]
        places = {name: torch.cat([view[2][name] for view in seen]) for name in view if name != "enlarged"}
        return {"geometry": places, "holes": torch.cat([view[1] for view in seen])}

    one = len(points(new))
    twice = fill(MFExtendView, **batch(0.08, 0.08))
    results["twice"] = [len(points(twice[2])) == one, float((twice[0][0] - twice[0][1]).abs()[~known].mean())]
    on = fill(MFExtendView, **batch(0.08, 0.12))[2]
    results["further_on"] = len(points(on)) / one
    apart = batch(0.08, 0.12)
    del apart["geometry"]["extrinsics"]
    results["no_places"] = [len(points(fill(MFExtendView, **apart)[2])) == one, noticed.pop()]

    # A walk, its cloud and its clip.
    clip_of_walk, views, cloud, _ = fill(
        MFExplore, geometry=geometry, route="to the right", views=2, frames=3, amplitude=0.2
    )
    results["walk"] = [list(clip_of_walk.shape), list(views["depth"].shape), list(views["extrinsics"].shape)]
    results["walk_camera"] = views["extrinsics"][:, 0, 3].tolist()
    results["walk_black"] = float((clip_of_walk.amax(-1) < 0.02).float().mean())
    results["walk_grows"] = len(points(cloud)) > len(points(old))
    eyes = fill(MFExplore, geometry=geometry, route="stereo", amplitude=0.03)[0]
    beside = fill(MFExplore, geometry=geometry, route="stereo", amplitude=0.03, layout="side by side")[0]
    results["stereo"] = [list(eyes.shape), list(beside.shape), bool(torch.equal(beside[0, :, :128], eyes[0]))]
    matrix = torch.eye(4)
    matrix[0, 3] = 0.5
    cameras = json.dumps({"frames": [{"transform_matrix": matrix.tolist()}]})
    found = fill(MFExplore, geometry=geometry, cameras=cameras)
    twice = json.dumps({"frames": json.loads(cameras)["frames"] * 2})
    beside = fill(MFExplore, geometry=geometry, route="stereo", layout="side by side", cameras=twice)[0]
    results["json_for_stereo"] = list(beside.shape)
    results["json"] = [list(found[0].shape), found[1]["extrinsics"][0, :3, 3].tolist()]
    aimed = {"position": {"x": 0.4, "y": 0.0, "z": 0.0}, "target": {"x": 0.4, "y": 0.0, "z": -4.0}, "fov": 53.0}
    found = fill(MFExplore, geometry=geometry, camera_info=aimed, viewer="mesh or splat", views=2, frames=2)
    results["aimed"] = found[1]["extrinsics"][:, 0, 3].tolist()

    # Sentences.
    results["inside"] = refusal(MFExplore, geometry=geometry, amplitude=2.5, views=1)
    results["bad_json"] = refusal(MFExplore, geometry=geometry, cameras="{")
    results["no_depth"] = refusal(MFExtendView, geometry={"points": geometry["points"]})
    nothing = {**geometry, "mask": torch.zeros_like(depth, dtype=torch.bool)}
    results["nothing_known"] = refusal(MFExtendView, geometry=nothing)
    results["odd_size"] = refusal(
        MFExtendView, geometry=make_geometry(depth[:, :100], depth[:, :100] > 0, image[:, :100], 60.0)
    )
    both = {name: torch.cat([value, value]) for name, value in geometry.items()}
    results["two_maps"] = refusal(MFExplore, geometry=both)
    results["foreign_model"] = refusal(MFExtendView, geometry=view, model=type("Model", (), {"model": None})())
    short = {"geometry": geometry, "route": "to the right", "views": 4, "frames": 2}

    # Every view that is filled moves one bar, and so do the frames of the clip.
    moved = []
    comfy.utils.PROGRESS_THROTTLE_MIN_INTERVAL = 0.0  # core leaves out what comes too soon
    comfy.utils.PROGRESS_THROTTLE_MIN_PERCENT = 0.0
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, node_id=None: moved.append((value, total)))
    usual = fill(MFExplore, **short)
    comfy.utils.set_progress_bar_global_hook(None)
    results["bar"] = {"values": [value for value, _ in moved], "totals": sorted({total for _, total in moved})}

    # The model is interrupted in the third view: that ends the walk, and the next one is as if nothing had been.
    each = FEW["steps"] + FEW["depth_steps"]
    calls, whole = [], given["model"]

    def stopping(apply, passed):
        calls.append(passed)
        if len(calls) == 2 * each + 1:
            comfy.model_management.interrupt_current_processing()
        return apply(passed["input"], passed["timestep"], **passed["c"])

    given["model"] = whole.clone()
    given["model"].set_model_unet_function_wrapper(stopping)
    try:
        fill(MFExplore, **short)
    except comfy.model_management.InterruptProcessingException:
        results["interrupted after"] = len(calls)
    given["model"] = whole
    results["after it"] = bool(torch.equal(fill(MFExplore, **short)[0], usual[0]))
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
