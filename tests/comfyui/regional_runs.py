"""Run by ComfyUI's Python: core's regional conditioning on the joint latent, results as JSON.

What a prompt weighs is compared with core's own weights on a plain latent of the same grid; what comes of it with the
predictions of the single prompts, put together by hand.

Usage: regional_runs.py PACK_ROOT GOLDEN_VARIANT_FOLDER
"""

import json
import sys
from pathlib import Path

from pack_loading import load_pack

STEPS = 5


def main(root: Path, folder: Path) -> None:
    load_pack(root)
    import comfy.hooks
    import comfy.samplers
    import comfy.utils
    import latent_preview
    import torch
    from comfy.nested_tensor import NestedTensor
    from pack_under_test.nodes.host.joint_latent import joint
    from pack_under_test.nodes.host.model_loader import load_joint_model
    from pack_under_test.nodes.host.regions import pack_regions
    from safetensors.torch import load_file

    import nodes

    comfy.utils.PROGRESS_BAR_ENABLED = False
    latent_preview.set_preview_method("none")
    data = load_file(folder / "sample.safetensors")
    rows, columns = grid = tuple(json.loads((folder / "config.json").read_text())["grid"])
    model = load_joint_model(str(folder))
    first, second = ([[data["text"][place : place + 1], {}]] for place in (0, 1))
    negative = [[data["null_text"][:1], {}]]
    channels = data["clean_rgb"].shape[-1], data["clean_depth"].shape[-1]
    results = {}

    def latent(batch=1):
        return joint(*(torch.zeros(batch, count, *grid) for count in channels))

    def sample(positive, steps=1, batch=1, patched=model, start=latent, **options):
        out = nodes.common_ksampler(
            patched, 3, steps, 4.0, "euler", "simple", positive, negative, start(batch), **options
        )
        return out[0]["samples"].unbind()

    def error(found, wanted) -> float:
        return max(float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True))

    def paste(inside, outside, weights):
        return [torch.lerp(b, a, weights) for a, b in zip(inside, outside, strict=True)]

    masked = nodes.ConditioningSetMask().append
    area = nodes.ConditioningSetArea().append
    percentage = nodes.ConditioningSetAreaPercentage().append
    left, corner = torch.zeros(1, *grid), torch.zeros(1, *grid)
    left[..., : columns // 2] = 1
    corner[:, 1:3, 2:] = 1
    soft = torch.rand(3, 40, 64, generator=torch.Generator().manual_seed(0))

    # Weights: core's on plain latents of both streams, in cells, against core's on the packed one.
    def in_cells(pixels):
        return {"area": tuple(8 * side // 16 for side in pixels)}

    cases = {
        "mask": masked(first, left, "default", 0.6)[0],
        "soft mask of another size": masked(first, soft[:1], "default", 1.0)[0],
        "mask per picture": masked(first, soft, "default", 1.5)[0],
        "mask bounds": masked(first, corner, "mask bounds", 1.0)[0],
        "area": area(first, 48, 32, 16, 16, 0.7)[0],
        "percentage": percentage(first, 0.5, 0.5, 0.5, 0.25, 2.0)[0],
        "mask in an area": masked(area(first, 48, 32, 16, 16, 0.7)[0], soft[:1], "default", 0.5)[0],
    }
    shapes = [(3, count, *grid) for count in channels]
    packed_input = torch.zeros(3, 1, sum(channels) * rows * columns)
    bare = {"model_conds": {}, "uuid": None}
    results["weights"] = {}
    for name, conditioning in cases.items():
        cond = conditioning[0][1] | bare
        (ours,) = pack_regions([cond], shapes)
        ours = comfy.samplers.get_area_and_mult(ours, packed_input, None)
        streams = comfy.utils.unpack_latents(ours.mult, shapes)
        pixels = cond.get("area", ())
        wanted = [cond | (in_cells(pixels) if pixels and pixels[0] != "percentage" else {})]
        comfy.samplers.resolve_areas_and_cond_masks_multidim(wanted, grid, torch.device("cpu"))
        errors = []
        for stream, shape in zip(streams, shapes, strict=True):
            core = comfy.samplers.get_area_and_mult(wanted[0], torch.zeros(shape), None)
            whole = torch.zeros(shape)
            height, width, top, start = core.area or (rows, columns, 0, 0)
            whole[..., top : top + height, start : start + width] = core.mult
            errors.append(float((stream - whole).abs().max()))
        results["weights"][name] = max(errors) if ours.area is None else "cropped"
    untouched = [first[0][1] | bare, {"strength": 0.5}]
    results["others_stay"] = all(a is b for a, b in zip(pack_regions(untouched, shapes), untouched, strict=True))
    strips = [area(first, 24, 64, x, 0, 1.0)[0][0][1] | bare for x in (0, 24, 48)]
    covered = sum((cond["mask"] > 0).int() for cond in pack_regions(strips, [(1, 1, 4, 8)]))
    results["neighbors"] = covered.view(4, 8)[0].tolist()

    # One step, whose result is the prediction: each half has that of its own prompt.
    a, b = sample(first), sample(second)
    results["prompts_differ"] = error(a, b)
    halves = masked(first, left, "default", 1.0)[0] + masked(second, 1 - left, "default", 1.0)[0]
    results["halves"] = error(sample(halves), paste(a, b, left))
    by_percentage = percentage(first, 0.5, 1.0, 0.0, 0.0, 1.0)[0] + percentage(second, 0.5, 1.0, 0.5, 0.0, 1.0)[0]
    results["halves_by_percentage"] = error(sample(by_percentage), paste(a, b, left))
    width, height = 16 * columns, 16 * rows
    by_pixels = area(first, width // 2, height, 0, 0, 1.0)[0] + area(second, width // 2, height, width // 2, 0, 1.0)[0]
    results["halves_by_pixels"] = error(sample(by_pixels), paste(a, b, left))
    combined = nodes.ConditioningCombine().combine(second, masked(first, left, "default", 3.0)[0])[0]
    results["mask_strength"] = error(sample(combined), paste(a, b, 0.75 * left))
    on_the_left = masked(first, left, "default", 1.0)
    (by_default,) = comfy.hooks.set_default_conds_and_combine(conds=[on_the_left[0]], new_conds=[second])
    results["default"] = error(sample(by_default), paste(a, b, left))
    pictures = torch.cat((left, 1 - left, corner))
    three = masked(first, pictures, "default", 1.0)[0] + masked(second, 1 - pictures, "default", 1.0)[0]
    whole = sample(first, batch=3), sample(second, batch=3)
    results["mask_per_picture"] = error(sample(three, batch=3), paste(*whole, pictures[:, None]))

    # Timestep ranges and hooks act on a region as on a whole prompt.
    early = nodes.ConditioningSetTimestepRange().set_range(masked(first, left, "default", 1.0)[0], 0.0, 0.5)[0]
    late = sample(second + early, STEPS)
    sigmas = comfy.samplers.KSampler(model, STEPS, model.load_device, "euler", "simple").sigmas
    switch = int((sigmas >= model.model.model_sampling.percent_to_sigma(0.5)).sum())
    regional = sample(second + masked(first, left, "default", 1.0)[0], STEPS, start_step=0, last_step=switch)
    rest = {"samples": NestedTensor(regional)}
    rest = sample(second, STEPS, start=lambda _: rest, start_step=switch, last_step=STEPS, disable_noise=True)
    results["timestep_range"], results["timestep_range_of_nothing"] = (
        error(late, rest),
        error(late, sample(second, STEPS)),
    )

    weights = model.model.state_dict()
    lora = {}
    torch.manual_seed(0)
    for name in (name for name in weights if name.endswith("linear1.weight")):
        stem = name.removesuffix(".weight")
        lora[f"{stem}.lora_A.weight"] = torch.randn(4, weights[name].shape[1]) / 8
        lora[f"{stem}.lora_B.weight"] = torch.randn(weights[name].shape[0], 4) / 8
    hooks = comfy.hooks.create_hook_lora(lora, 0.5, 0)
    styled = comfy.hooks.set_hooks_for_conditioning(first, hooks)
    with_lora = sample(styled, patched=model.clone())
    hooked = masked(styled, left, "default", 1.0)[0] + masked(second, 1 - left, "default", 1.0)[0]
    results["lora_acts"] = error(with_lora, a)
    results["hooked_half"] = error(sample(hooked, patched=model.clone()), paste(with_lora, b, left))

    longer = nodes.ConditioningConcat().concat(first, second)[0]
    results["concat"] = all(bool(torch.isfinite(part).all()) for part in sample(longer))
    try:
        sample(area(first, 64, 64, 16 * columns, 0, 1.0)[0])
    except ValueError as problem:
        results["outside"] = str(problem)
    print(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
