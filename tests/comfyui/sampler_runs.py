"""Run by ComfyUI's Python: MF Sampler and stock samplers against ``mforce_core.sample``, results as JSON.

Usage: sampler_runs.py PACK_ROOT GOLDEN_VARIANT_FOLDER
"""

import json
import sys
from pathlib import Path

from pack_loading import load_pack

STEPS = 8


def main(root: Path, folder: Path) -> None:
    load_pack(root)
    import comfy.sample
    import comfy.samplers
    import comfy.utils
    import torch
    from comfy.nested_tensor import NestedTensor
    from pack_under_test.mforce_core.sampling.rollout import sample
    from pack_under_test.mforce_core.weights.checkpoint import load_model
    from pack_under_test.nodes.host.core_sampler import Settings, sample_latent
    from pack_under_test.nodes.host.joint_latent import joint
    from pack_under_test.nodes.host.model_loader import load_joint_model
    from pack_under_test.nodes.host.noise_levels import JointModelSampling
    from pack_under_test.nodes.host.starting_noise import draw_noise
    from pack_under_test.nodes.sampler import MFSampler
    from safetensors.torch import load_file

    data = load_file(folder / "sample.safetensors")
    grid = tuple(json.loads((folder / "config.json").read_text())["grid"])
    patcher, reference = load_joint_model(str(folder)), load_model(folder)
    # One prompt, as nodes give it; the golden data has two.
    text, null_text = data["text"][:1], data["null_text"][:1]
    positive, negative = [[text, {}]], [[null_text, {}]]

    def to_grid(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.transpose(1, 2).unflatten(2, grid).contiguous()

    def to_tokens(latent: torch.Tensor) -> torch.Tensor:
        return latent.flatten(2).transpose(1, 2).contiguous()

    def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
        return float((found - wanted).norm() / wanted.norm())

    rgb, depth = to_grid(data["clean_rgb"])[:1], to_grid(data["clean_depth"])[:1]
    empty = joint(torch.zeros_like(rgb), torch.zeros_like(depth))
    latents = {
        "joint": empty,
        "i2d": joint(rgb, torch.zeros_like(depth), freeze_rgb=True),
        "d2i": joint(torch.zeros_like(rgb), depth, freeze_depth=True),
    }
    results = {}

    def tilted_by(log2_alpha):
        model = patcher.clone()
        model.add_object_patch("model_sampling", JointModelSampling(reference.schedule, log2_alpha))
        return model

    def rollout(mode, noise, steps=STEPS, cfg=4.0, log2_alpha=0.0, given_rgb=rgb):
        out = sample(
            reference,
            text.expand(noise.unbind()[0].shape[0], -1, -1),
            grid,
            mode=mode,
            steps=steps,
            cfg=1.0 if mode == "i2d" else cfg,
            log2_alpha=log2_alpha if mode == "joint" else None,
            null_text=null_text,
            rgb=to_tokens(given_rgb) if mode == "i2d" else None,
            depth=to_tokens(depth) if mode == "d2i" else None,
            noise=tuple(to_tokens(stream) for stream in noise.unbind()),
        )
        return [to_grid(tokens) for tokens in out]

    def compare(name, mode, latent=None, steps=STEPS, log2_alpha=0.0, seed=3):
        latent = latents[mode] if latent is None else latent
        settings = Settings(steps=steps, log2_alpha=log2_alpha)
        found = sample_latent(patcher, positive, negative, latent, "auto", settings, seed)
        singles = [
            comfy.sample.prepare_noise(NestedTensor([rgb, depth]), seed + place).unbind()
            for place in range(latent["samples"].unbind()[0].shape[0])
        ]
        noise = NestedTensor([torch.cat(streams) for streams in zip(*singles, strict=True)])
        wanted = rollout(mode, noise, steps, log2_alpha=log2_alpha)
        results[name] = max(error(a, b) for a, b in zip(found, wanted, strict=True))
        return found

    compare("joint", "joint")
    compare("tilted", "joint", log2_alpha=5.0)
    frozen_rgb = compare("i2d", "i2d")[0]
    frozen_depth = compare("d2i", "d2i")[1]
    results["frozen_unchanged"] = bool(torch.equal(frozen_rgb, rgb) and torch.equal(frozen_depth, depth))
    # Depth noise levels below the floor at which the release divides by t.
    compare("many_steps", "joint", steps=60, log2_alpha=-3.0)
    three = joint(torch.zeros(3, *rgb.shape[1:]), torch.zeros(3, *depth.shape[1:]))
    batch = compare("batch", "joint", latent=three)
    settings = Settings(steps=STEPS, log2_alpha=0.0)
    alone = [sample_latent(patcher, positive, negative, empty, "auto", settings, 3 + place) for place in range(3)]
    taken = three | {"samples": empty["samples"], "batch_index": [2]}

    def same(ones, others) -> bool:
        return all(torch.equal(a, b) for a, b in zip(ones, others, strict=True))

    results["picture in a batch"] = all(same([s[i : i + 1] for s in batch], alone[i]) for i in range(3))
    drawn = draw_noise(*three["samples"].unbind(), [3, 4, 5]).unbind()
    results["noise_alone"] = all(
        same([s[i : i + 1] for s in drawn], draw_noise(rgb, depth, [3 + i]).unbind()) for i in range(3)
    )
    third = sample_latent(patcher, positive, negative, taken, "auto", settings, 3)
    results["taken_from_a_batch"] = same(third, alone[2])

    # Core's samplers: a picture alone is what core makes of it, and a picture of a batch is that picture alone. A mask
    # leaves parts to the noise that some samplers draw for it.
    mask = torch.zeros(1, 1, *rgb.shape[2:])
    mask[..., : grid[1] // 2] = 1
    masks = NestedTensor([mask, torch.ones_like(mask)])
    given = joint(rgb, depth) | {"noise_mask": masks}
    batched = joint(rgb.expand(3, -1, -1, -1), depth.expand(3, -1, -1, -1)) | {"noise_mask": masks}
    results["not as core"], results["not as alone"] = [], []
    for name in comfy.samplers.SAMPLER_NAMES:
        settings = Settings(steps=3, log2_alpha=0.0, sampler_name=name, scheduler="simple")
        singles = [sample_latent(patcher, positive, negative, given, "auto", settings, 7 + i) for i in range(3)]
        core = comfy.sample.sample(
            tilted_by(0.0), draw_noise(rgb, depth, [7]), 3, 4.0, name, "simple", positive, negative,
            given["samples"], noise_mask=masks, seed=7,
        )  # fmt: skip
        if not same(core.unbind(), singles[0]):
            results["not as core"].append(name)
        together = sample_latent(patcher, positive, negative, batched, "auto", settings, 7)
        if not all(same([s[i : i + 1] for s in together], singles[i]) for i in range(3)):
            results["not as alone"].append(name)

    seen = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, *_, **__: seen.append((value, total)))
    totals = []
    for refine in (False, True):
        seen.clear()
        settings = Settings(steps=STEPS, log2_alpha=5.0)
        found = sample_latent(patcher, positive, negative, empty, "joint", settings, 3, refine)
        assert all(value <= total == seen[-1][0] for value, total in seen)
        totals.append(seen[-1][0])
    results["callbacks"] = totals
    noise = comfy.sample.prepare_noise(empty["samples"], 3)
    results["refined"] = error(found[1], rollout("i2d", noise, given_rgb=found[0])[1])

    def stock(latent, cfg):
        out = comfy.sample.sample(
            patcher, noise, STEPS, cfg, "euler", "simple", positive, negative, latent["samples"],
            noise_mask=latent.get("noise_mask"), seed=3,
        )  # fmt: skip
        return out.unbind()

    wanted = rollout("joint", noise, log2_alpha=5.0)
    results["ksampler"] = max(error(a, b) for a, b in zip(stock(empty, 4.0), wanted, strict=True))
    results["ksampler_i2d"] = error(stock(latents["i2d"], 1.0)[1], rollout("i2d", noise)[1])

    def message(call) -> str:
        try:
            call()
        except ValueError as problem:
            return str(problem)
        return ""

    def node(latent, mode="auto", text=positive):
        return MFSampler.execute(patcher, text, negative, latent, 0, mode, 1, 4.0, 5.0, False)

    plain = {"samples": torch.zeros_like(rgb)}
    results["wrong_latent"] = message(lambda: node(plain))
    results["nothing_given"] = message(lambda: node(empty, "i2d"))
    results["wrong_text"] = message(lambda: node(empty, text=[[torch.zeros(1, 4, 7), {}]]))
    results["stock_wrong_latent"] = message(
        lambda: comfy.sample.sample(
            patcher, plain["samples"], 1, 1.0, "euler", "simple", positive, negative, plain["samples"]
        )
    )
    swapped = NestedTensor([depth, rgb])
    results["swapped"] = message(lambda: node({"samples": swapped}))
    print(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
