"""Run by ComfyUI's Python: load a trained LoRA file the way LoraLoader does, results as JSON.

Usage: trained_lora_runs.py PACK_ROOT UNMERGED_MODEL_FOLDER LORA_FILE MERGED_MODEL_FOLDER
"""

import json
import sys
from pathlib import Path

from pack_loading import load_pack


def main(root: Path, unmerged: Path, file: Path, merged: Path) -> None:
    load_pack(root)
    import comfy.sd
    import comfy.utils
    import torch
    from pack_under_test.nodes.host import core_sampler, sampler_wrappers
    from pack_under_test.nodes.host.joint_latent import joint
    from pack_under_test.nodes.host.model_loader import load_joint_model
    from safetensors.torch import load_file

    model = load_joint_model(str(unmerged))
    pairs = comfy.utils.load_torch_file(str(file), safe_load=True)
    with_lora, _ = comfy.sd.load_lora_for_models(model, None, pairs, 1.0, 0)
    wanted = {name.removeprefix("dit."): tensor for name, tensor in load_file(merged / "model.safetensors").items()}
    before = {name: tensor.clone() for name, tensor in model.model.diffusion_model.state_dict().items()}
    with_lora.patch_model()
    found = with_lora.model.diffusion_model.state_dict()

    def distance(one: dict, other: dict) -> float:
        return sum(float((one[name].float() - other[name].float()).square().sum()) for name in layers) ** 0.5

    layers = {name.removeprefix("diffusion_model.") for name in with_lora.patches}
    said: list[str] = []
    sampler_wrappers.notice = said.append
    text = [[torch.zeros(1, 2, 128), {}]]
    latent = joint(torch.zeros(1, 128, 2, 2), torch.zeros(1, 256, 2, 2))
    for cfg in (1.0, 4.0):
        settings = core_sampler.Settings(steps=1, cfg=cfg)
        core_sampler.sample_latent(load_joint_model(str(merged)), text, text, latent, "joint", settings, 0)
    few = [load_joint_model(str(folder)).model.model_config.distilled for folder in (merged, unmerged)]
    results = {
        "said": said,
        "made_for": few[0] and few[0].steps,
        "unmerged_made_for": few[1] and few[1].steps,
        "layers": sorted(layers),
        "pairs": len([name for name in pairs if name.endswith(".lora_A.weight")]),
        "update": distance(found, before) / distance(before, dict.fromkeys(layers, torch.zeros(()))),
        "error": distance(found, wanted) / distance(found, before),
        "others_equal": all(torch.equal(found[n].float(), wanted[n].float()) for n in wanted.keys() - layers),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
