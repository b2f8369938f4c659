"""Run by ComfyUI's Python: batches of joint latents, and core's batch nodes on plain ones, results as JSON.

Usage: batch_runs.py PACK_ROOT
"""

import json
import sys
from pathlib import Path

from pack_loading import load_pack


def main(root: Path) -> None:
    load_pack(root)
    import torch
    from comfy.nested_tensor import NestedTensor
    from pack_under_test.nodes.depth_detokenize import MFDepthDetokenize
    from pack_under_test.nodes.host.joint_latent import JointLatent, joint, record_of_stream
    from pack_under_test.nodes.host.starting_noise import ALWAYS, FOR_DEPTH, NEVER, batch_seeds
    from pack_under_test.nodes.latent_from_batch import MFLatentFromBatch
    from pack_under_test.nodes.repeat_latent import MFRepeatLatent

    import nodes

    draws = torch.Generator().manual_seed(0)
    rgb, depth = torch.rand(4, 128, 2, 3, generator=draws), torch.rand(4, 256, 2, 3, generator=draws)
    masks = torch.rand(4, 1, 5, 7, generator=draws)
    record = {"depth_valid": torch.rand(4, 32, 48, generator=draws) > 0.5, "depth_scale": torch.arange(1.0, 5.0)}
    whole = joint(rgb, depth) | record | {"placement": "where it was"}
    results = {}

    def take(latent, start, length):
        return MFLatentFromBatch.execute(latent, start, length).args[0]

    def repeat(latent, amount):
        return MFRepeatLatent.execute(latent, amount).args[0]

    def same(one, other) -> bool:
        """Whether two LATENTs hold the same, nested or not."""
        if one.keys() != other.keys():
            return False
        pairs = []
        for name in one:
            a, b = one[name], other[name]
            nested = getattr(a, "is_nested", False)
            pairs += zip(a.unbind(), b.unbind(), strict=True) if nested else [(a, b)]
        return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)

    # Core's nodes on one stream say what is right for each.
    core_take, core_repeat = nodes.LatentFromBatch().frombatch, nodes.RepeatLatentBatch().repeat
    plain = {
        "bare": {"samples": rgb},
        "masks": {"samples": rgb, "noise_mask": masks},
        "one mask": {"samples": rgb, "noise_mask": masks[:1]},
        "places": {"samples": rgb, "batch_index": [2, 3, 5, 7]},
    }
    results["like_core"] = {
        name: all(same(take(latent, *part), core_take(latent, *part)[0]) for part in ((0, 1), (1, 2), (-1, 1), (2, 9)))
        and same(repeat(latent, 3), core_repeat(latent, 3)[0] | {"repeat_index": sorted([0, 1, 2] * 4)})
        for name, latent in plain.items()
    }

    nested = whole | {"noise_mask": NestedTensor([masks, masks[:1]])}
    two = take(nested, 1, 2)
    wanted = joint(rgb[1:3], depth[1:3]) | {name: value[1:3] for name, value in record.items()}
    wanted |= {"noise_mask": NestedTensor([masks[1:3], masks[:1]]), "batch_index": [1, 2], "placement": "where it was"}
    results["joint_part"] = same(two, wanted)
    results["part_of_a_part"] = take(two, 1, 1)["batch_index"] == [2]
    clip = {"samples": rgb[:2]}
    results["repeats_of_repeats"] = repeat(repeat(clip, 2), 2)["repeat_index"] == [0, 0, 1, 1, 2, 2, 3, 3]
    results["a_repeat"] = take(repeat(clip, 3), 3, 3)["repeat_index"] == [1, 2, 2]
    results["seeds"] = {
        f"{name}, {mode}": batch_seeds(latent, mode, 5, when)
        for name, latent, mode, when in (
            ("clip", take(whole, 1, 3), "i2d", FOR_DEPTH),
            ("members of a clip", repeat(clip, 2), "i2d", FOR_DEPTH),
            ("member", take(repeat(clip, 2), -1, 1), "i2d", FOR_DEPTH),
            ("batch", whole, "joint", FOR_DEPTH),
            ("batch", whole, "d2i", FOR_DEPTH),
            ("members", repeat(take(whole, 0, 1), 3), "joint", FOR_DEPTH),
            ("part, always", take(whole, 1, 3), "joint", ALWAYS),
            ("members, always", repeat(take(whole, 0, 1), 3), "d2i", ALWAYS),
            ("part, never", take(whole, 1, 3), "i2d", NEVER),
            ("cut by another node", repeat(clip, 2) | {"samples": rgb[:3]}, "i2d", FOR_DEPTH),
        )
    }
    doubled = repeat(nested, 2)
    results["repeated_record"] = {name: len(doubled[name]) for name in record}
    back = [take(doubled, start, 4) for start in (0, 4)]
    no_places = {"batch_index": 0, "repeat_index": 0}
    results["repeats"] = all(same(part | no_places, nested | no_places) for part in back)
    results["untouched"] = same(nested, whole | {"noise_mask": NestedTensor([masks, masks[:1]])})

    # A sampler's own copy of a latent is the last one, so what it says counts, and not what an earlier one says.
    earlier, other = joint(rgb, depth + 1) | record, {"depth_scale": torch.full((4,), 9.0)}
    later = JointLatent(joint(rgb, depth + 1) | other)
    found = [record_of_stream(depth + 1)]
    later = joint(rgb, depth + 1)
    found.append(record_of_stream(depth + 1))
    del later
    found += [record_of_stream(depth + 1), record_of_stream(depth + 2)]
    wanted = [other, {}, {name: earlier[name] for name in record}, {}]
    results["records"] = [same(*pair) for pair in zip(found, wanted, strict=True)]

    def message(call) -> str:
        try:
            call()
        except (ValueError, AttributeError, TypeError) as problem:
            return str(problem)
        return ""

    results["no_such_picture"] = message(lambda: take(whole, 4, 1))
    stream = record | {"samples": depth}
    results["cut_by_core"] = message(lambda: MFDepthDetokenize.execute(core_take(stream, 0, 2)[0]))
    larger = nodes.LatentUpscale().upscale(
        {"samples": depth, "depth_valid": record["depth_valid"]}, "bilinear", 64, 64, "disabled"
    )
    results["resized_by_core"] = message(lambda: MFDepthDetokenize.execute(larger[0]))
    arithmetic = (whole["samples"] * 2.0).unbind()
    results["arithmetic"] = torch.equal(arithmetic[0], 2 * rgb) and torch.equal(arithmetic[1], 2 * depth)
    print(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
