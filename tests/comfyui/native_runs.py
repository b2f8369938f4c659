"""Run by ComfyUI's Python: the model in core's hands (samplers, guiders, LoRA, hooks, caches), results as JSON.

Usage: native_runs.py PACK_ROOT GOLDEN_VARIANT_FOLDER WORK_FOLDER
"""

import json
import sys
from pathlib import Path

from pack_loading import load_pack

# Core's "simple" schedule has the release's noise levels where the steps divide 10000.
STEPS = 5


def main(root: Path, folder: Path, work: Path) -> None:
    load_pack(root)
    import comfy.hooks
    import comfy.multigpu
    import comfy.sample
    import comfy.samplers
    import comfy.sd
    import comfy.utils
    import latent_preview
    import torch
    from comfy.cli_args import LatentPreviewMethod
    from comfy.nested_tensor import NestedTensor
    from comfy_extras import nodes_custom_sampler, nodes_easycache, nodes_torch_compile
    from pack_under_test.nodes.host.comfy_transformer import ATTENTION_OPTION
    from pack_under_test.nodes.host.core_sampler import Settings, sample_latent
    from pack_under_test.nodes.host.joint_latent import joint
    from pack_under_test.nodes.host.model_loader import load_joint_model
    from pack_under_test.nodes.tilt import MFTilt
    from safetensors.torch import load_file, save_file

    from nodes import common_ksampler

    comfy.utils.PROGRESS_BAR_ENABLED = False
    latent_preview.set_preview_method("none")
    data = load_file(folder / "sample.safetensors")
    grid = tuple(json.loads((folder / "config.json").read_text())["grid"])
    model = load_joint_model(str(folder))
    positive, negative = [[data["text"][:1], {}]], [[data["null_text"][:1], {}]]
    rgb, depth = (
        data[f"clean_{name}"][:1].transpose(1, 2).unflatten(2, grid).contiguous() for name in ("rgb", "depth")
    )
    empty = joint(torch.zeros_like(rgb), torch.zeros_like(depth))
    given = joint(rgb, depth)
    results = {}

    def error(found, wanted) -> float:
        pairs = zip(found.unbind(), wanted.unbind(), strict=True)
        return max(float((a - b).norm() / b.norm()) for a, b in pairs)

    def ksampler(latent, patched=None, cfg=4.0, sampler="euler", seed=3, conds=(positive, negative), **options):
        patched = model if patched is None else patched
        return common_ksampler(patched, seed, STEPS, cfg, sampler, "simple", *conds, latent, **options)[0]["samples"]

    def refusal(call) -> str:
        try:
            call()
        except ValueError as problem:
            return str(problem)
        return ""

    plain = ksampler(empty)

    # Advanced: two halves with the noise left in between are the whole.
    half = ksampler(empty, start_step=0, last_step=2, force_full_denoise=False)
    second = {"samples": half}
    whole = ksampler(second, start_step=2, last_step=STEPS, disable_noise=True)
    results["advanced"] = error(whole, plain)

    # Guiders.
    def custom(guider):
        noise = nodes_custom_sampler.Noise_RandomNoise(3)
        sigmas = comfy.samplers.KSampler(model, STEPS, model.load_device, "euler", "simple").sigmas
        sampler = comfy.samplers.sampler_object("euler")
        done = nodes_custom_sampler.SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, empty).args
        return [latent["samples"] for latent in done]

    guiders = nodes_custom_sampler
    finished, denoised = custom(guiders.CFGGuider.execute(model, positive, negative, 4.0).args[0])
    results["cfg_guider"], results["denoised_output"] = error(finished, plain), error(denoised, plain)
    results["basic_guider"] = error(
        custom(guiders.BasicGuider.execute(model, positive).args[0])[0], ksampler(empty, cfg=1)
    )
    dual = guiders.DualCFGGuider.execute(model, positive, positive, negative, 1.0, 4.0, "regular").args[0]
    results["dual_guider"] = error(custom(dual)[0], plain)

    # LoRA: a file for the text-to-image base, the way training tools write it.
    torch.manual_seed(0)
    weights = model.model.state_dict()
    before = {name: value.clone() for name, value in weights.items()}
    targets = [name for name in weights if name.endswith(("img_attn.qkv.weight", "txt_mlp.0.weight", "linear1.weight"))]
    targets = [name for name in targets if "depth" not in name]
    lora = {}
    for name in targets:
        out_features, in_features = weights[name].shape
        stem = name.removesuffix(".weight")
        lora |= {
            f"{stem}.lora_A.weight": torch.randn(4, in_features) / 8,
            f"{stem}.lora_B.weight": torch.randn(out_features, 4) / 8,
        }
    save_file(lora, work / "style.safetensors")
    loaded = comfy.utils.load_torch_file(str(work / "style.safetensors"))
    styled, _ = comfy.sd.load_lora_for_models(model, None, loaded, 0.5, 0)
    results["lora_layers"] = sorted(styled.patches) == sorted(targets)
    with_lora = ksampler(empty, styled)
    results["lora_changes"] = error(with_lora, plain)
    results["lora_off"] = error(ksampler(empty), plain)
    results["lora_restored"] = all(torch.equal(model.model.state_dict()[name], value) for name, value in before.items())

    # The same file as a hook on the conditioning.
    hooks = comfy.hooks.create_hook_lora(loaded, 0.5, 0)
    hooked = [comfy.hooks.set_hooks_for_conditioning(cond, hooks) for cond in (positive, negative)]
    registered = model.clone()
    results["hook"] = error(ksampler(empty, registered, conds=hooked), with_lora)
    results["hook_gone"] = error(ksampler(empty), plain)

    # Caches and compilation.
    cached = nodes_easycache.EasyCacheNode.execute(model, 0.2, 0.15, 0.95, False).args[0]
    results["easycache"] = refusal(lambda: ksampler(empty, cached))
    lazy = nodes_easycache.LazyCacheNode.execute(model, 3.0, 0.0, 1.0, False).args[0]
    results["lazycache"] = error(ksampler(empty, lazy), plain)
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    compiled = model.clone()
    set_torch_compile_wrapper(model=compiled, backend="eager", options=None)
    results["compiled"] = error(ksampler(empty, compiled), plain)
    assert nodes_torch_compile.TorchCompileModel  # the node calls the same helper with inductor

    # The node's choice of attention reaches the kernels.
    calls = []

    def counted(function, *arguments, **options):
        calls.append(function)
        return function(*arguments, **options)

    overridden = model.clone()
    overridden.model_options["transformer_options"]["optimized_attention_override"] = counted
    results["host_attention"] = error(ksampler(empty, overridden), plain)
    results["host_attention_calls"] = len(calls)
    overridden.model_options["transformer_options"][ATTENTION_OPTION] = "sdpa"
    ksampler(empty, overridden)
    results["host_attention_calls_when_not_asked"] = len(calls) - results["host_attention_calls"]

    # What does not fit says so.
    patched = model.clone()
    patched.set_model_patch_replace(lambda *_: None, "dit", "double_block", 0)
    results["block_patch"] = refusal(lambda: ksampler(empty, patched))
    clone = model.deepclone_multigpu(new_load_device=torch.device("cpu"))
    several = model.clone()
    several.set_additional_models("multigpu", [clone])
    results["multigpu_run"] = error(ksampler(empty, several), plain)
    results["multigpu_told"] = clone.model.run == model.model.run

    # Masks: what is masked out stays, bit for bit, whatever the sampler and an odd tilt.
    tilted = MFTilt.execute(model, 1.3).args[0]
    corner = torch.zeros(1, 1, *grid)
    corner[..., :2, :3] = 1
    kept = corner.expand(-1, rgb.shape[1], -1, -1) == 0
    kept_depth = corner.expand(-1, depth.shape[1], -1, -1) == 0
    masks = {
        "rgb_part": (corner, torch.ones_like(corner)),
        "depth_part": (torch.ones_like(corner), corner),
        "both": (corner, corner),
    }
    for name, (rgb_mask, depth_mask) in masks.items():
        latent = {**given, "noise_mask": NestedTensor([rgb_mask, depth_mask])}
        for sampler in ("euler", "heun", "dpmpp_2m_sde", "uni_pc"):
            new_rgb, new_depth = ksampler(latent, tilted, sampler=sampler).unbind()
            results[f"{name}_{sampler}_stays"] = bool(
                (rgb_mask.all() or torch.equal(new_rgb[kept], rgb[kept]))
                and (depth_mask.all() or torch.equal(new_depth[kept_depth], depth[kept_depth]))
            )
            results[f"{name}_{sampler}_new"] = bool(
                (new_rgb[~kept] != rgb[~kept]).all() and (new_depth[~kept_depth] != depth[~kept_depth]).all()
            )

    # Image to image: core's and MF Sampler's are the same.
    settings = Settings(steps=STEPS, denoise=0.5)
    mf = NestedTensor(list(sample_latent(model, positive, negative, given, "auto", settings, 3)))
    results["img2img"] = error(mf, ksampler(given, denoise=0.5))
    picture_only = joint(rgb, torch.zeros_like(depth))
    made = sample_latent(model, positive, negative, picture_only, "auto", settings, 3)
    results["img2img_without_depth"] = all(bool(torch.isfinite(part).all()) for part in made)
    results["img2img_of_nothing"] = refusal(
        lambda: sample_latent(model, positive, negative, empty, "auto", settings, 3)
    )

    # Live preview: both streams, nested callbacks and packed ones.
    from comfy.cli_args import args

    args.preview_method = LatentPreviewMethod.Latent2RGB
    factors = torch.randn(rgb.shape[1], 3, generator=torch.Generator().manual_seed(0)) / 4
    model.model.latent_format.latent_rgb_factors = factors.tolist()
    model.model.latent_format.latent_rgb_factors_bias = [0.0] * 3
    model.model.preview.unpack = None  # the stock one takes FLUX.2's 128 channels apart
    pictures = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, **_: pictures.append(preview))
    ksampler(empty)
    sizes = {picture[1].size for picture in pictures}
    results["preview_sizes"] = [list(size) for size in sizes]
    right = [
        torch.frombuffer(bytearray(p[1].tobytes()), dtype=torch.uint8).view(8 * grid[0], 16 * grid[1], 3)[
            :, 8 * grid[1] :
        ]
        for p in pictures
    ]
    results["preview_depth_changes"] = not torch.equal(right[0], right[-1])
    results["preview_depth_has_range"] = int(right[-1].max()) - int(right[-1].min()) > 100
    watched = []
    packed, shapes = comfy.utils.pack_latents([rgb, depth])
    model.model.preview.watch(lambda *values: watched.append(values), shapes, 2.0)(0, packed, packed, 1)
    results["packed_callback"] = bool(torch.equal(model.model.preview.depth, 2 * depth)) and len(watched) == 1
    print(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
