"""Run by ComfyUI's Python: the golden rollouts along their paths, results as JSON.

Once through core's SamplerCustomAdvanced with the SAMPLER and SIGMAS of MF Path, once through MF Sampler's own route.

Usage: path_runs.py PACK_ROOT GOLDEN_VARIANT_FOLDER...
"""

import json
import sys
from pathlib import Path

from pack_loading import load_pack


def main(root: Path, *folders: Path) -> None:
    load_pack(root)
    print(json.dumps({folder.name: rollout_errors(folder) for folder in folders}))


def rollout_errors(folder: Path) -> dict[str, float]:
    """Relative error of each stream of each rollout of a variant, by route."""
    import comfy.samplers
    import torch
    from comfy.nested_tensor import NestedTensor
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced
    from pack_under_test.mforce_core.sampling.path import NoisePath
    from pack_under_test.mforce_core.sampling.schedule import rollout_times
    from pack_under_test.nodes.host.joint_latent import joint
    from pack_under_test.nodes.host.model_loader import load_joint_model
    from pack_under_test.nodes.host.path_sampler import PathSampler
    from safetensors.torch import load_file

    settings = json.loads((folder / "sample.json").read_text())
    data = load_file(folder / "sample.safetensors")
    height, width = json.loads((folder / "config.json").read_text())["grid"]

    def grid(tokens: torch.Tensor) -> torch.Tensor:
        return tokens.transpose(1, 2).unflatten(2, (height, width)).contiguous()

    class GivenNoise:
        seed = 0

        def __init__(self, noise: NestedTensor) -> None:
            self.noise = noise

        def generate_noise(self, _latent: dict) -> NestedTensor:
            return self.noise

    model = load_joint_model(str(folder))
    guidance = {} if "guidance" not in settings else {"guidance": settings["guidance"]}
    positive, negative = ([[data[name], dict(guidance)]] for name in ("text", "null_text"))

    errors = {}
    for name, golden in settings["runs"].items():
        mode = golden["mode"]
        start = NestedTensor([grid(data[f"{name}.init_rgb"]), grid(data[f"{name}.init_depth"])])
        rgb, depth = start.unbind() if mode != "joint" else map(torch.zeros_like, start.unbind())
        latent = joint(rgb, depth, freeze_rgb=mode == "i2d", freeze_depth=mode == "d2i")
        times = rollout_times(
            golden["num_steps"],
            mode=mode,
            log2_alpha=golden.get("log2_alpha"),
            schedule=model.model.diffusion_model.schedule,
        )
        path = NoisePath(*times)
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(golden["cfg_scale"])
        sampler = PathSampler(path, "euler")
        advanced = SamplerCustomAdvanced.execute(GivenNoise(start), guider, sampler, sampler.sigmas, latent)
        found = {"advanced": advanced[0]["samples"].unbind(), "x0": advanced[1]["samples"].unbind()}
        for route, streams in found.items():
            for stream, result in zip(("rgb", "depth"), streams, strict=True):
                wanted = grid(data[f"{name}.out_{stream}"])
                errors[f"{route}.{name}.{stream}"] = float((result - wanted).norm() / wanted.norm())
    return errors


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
