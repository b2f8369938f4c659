"""Run by ComfyUI's Python: every golden rollout through core's CFGGuider and euler sampler, errors as JSON.

Usage: golden_rollouts.py PACK_ROOT GOLDEN_VARIANT_FOLDER...
"""

import json
import sys
from pathlib import Path

from pack_loading import load_pack


def main(root: Path, *folders: Path) -> None:
    load_pack(root)
    print(json.dumps({folder.name: rollout_errors(folder) for folder in folders}))


def rollout_errors(folder: Path) -> dict[str, float]:
    """Relative error of each stream of each rollout of a variant."""
    import comfy.samplers
    import torch
    from comfy.nested_tensor import NestedTensor
    from pack_under_test.mforce_core.sampling.schedule import rollout_times
    from pack_under_test.nodes.host.model_loader import load_joint_model
    from pack_under_test.nodes.host.noise_levels import JointModelSampling
    from safetensors.torch import load_file

    settings = json.loads((folder / "sample.json").read_text())
    data = load_file(folder / "sample.safetensors")
    height, width = json.loads((folder / "config.json").read_text())["grid"]

    def grid(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.transpose(1, 2).unflatten(2, (height, width)).contiguous()

    model = load_joint_model(str(folder))
    guidance = {} if "guidance" not in settings else {"guidance": settings["guidance"]}
    conditioning = {name: [[data[name], dict(guidance)]] for name in ("text", "null_text")}

    errors = {}
    for name, run in settings["runs"].items():
        mode = run["mode"]
        start = NestedTensor([grid(data[f"{name}.init_rgb"]), grid(data[f"{name}.init_depth"])])
        zeros = NestedTensor([torch.zeros_like(stream) for stream in start.unbind()])
        latent = zeros if mode == "joint" else start
        masks = {"i2d": (0.0, 1.0), "d2i": (1.0, 0.0)}.get(mode)
        denoise_mask = None
        if masks is not None:
            denoise_mask = NestedTensor(
                [torch.full_like(stream, value) for stream, value in zip(start.unbind(), masks, strict=True)]
            )

        patched = model.clone()
        schedule = model.model.diffusion_model.schedule
        sampling = JointModelSampling(schedule, run.get("log2_alpha") or 0.0)
        patched.add_object_patch("model_sampling", sampling)
        guider = comfy.samplers.CFGGuider(patched)
        guider.set_conds(conditioning["text"], conditioning["null_text"])
        guider.set_cfg(run["cfg_scale"])
        t_rgb, t_depth = rollout_times(run["num_steps"], mode=mode, schedule=schedule)
        sigmas = t_depth if mode == "i2d" else t_rgb
        out = guider.sample(
            start, latent, comfy.samplers.sampler_object("euler"), sigmas, denoise_mask=denoise_mask, seed=0
        )
        for stream, result in zip(("rgb", "depth"), out.unbind(), strict=True):
            wanted = grid(data[f"{name}.out_{stream}"])
            errors[f"{name}.{stream}"] = float((result - wanted).norm() / wanted.norm())
    return errors


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
