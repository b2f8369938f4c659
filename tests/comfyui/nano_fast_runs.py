"""Run by ComfyUI's Python: nano-fast from Load MF Model, nano with the same file from core's LoraLoader, and the core's
own rollout of nano-fast from the same noise; results as JSON.

Usage: nano_fast_runs.py PACK_ROOT
"""

import json
import logging
import sys
from pathlib import Path

from pack_loading import load_pack

PROMPT, SEED = "a red sphere on a wooden floor", 3


def main(root: Path) -> None:
    load_pack(root)
    import comfy.sample
    import folder_paths
    import torch
    from comfy.nested_tensor import NestedTensor
    from pack_under_test.mforce_core.sampling.path_spec import PathSpec
    from pack_under_test.mforce_core.sampling.rollout import sample
    from pack_under_test.mforce_core.weights.checkpoint import load_model
    from pack_under_test.nodes import load_model as node
    from pack_under_test.nodes.empty_latent import MFEmptyLatent
    from pack_under_test.nodes.host import sampler_wrappers
    from pack_under_test.nodes.path import MFPath
    from pack_under_test.nodes.sampler import MFSampler

    import nodes

    folder = root / "models" / "nano-fast"
    folder_paths.add_model_folder_path("loras", str(folder))
    notices: list[str] = []
    sampler_wrappers.notice = notices.append
    warned: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warned.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    said: list[str] = []
    node.logger.setLevel(logging.INFO)
    node.logger.addFilter(lambda record: said.append(record.getMessage()) or True)

    fast, clip, vae = node.MFLoadModel.execute(node.NANO_FAST).result
    nano = node.MFLoadModel.execute(node.NANO).result[0]
    with_lora, _ = nodes.LoraLoader().load_lora(nano, None, "lora.safetensors", 1.0, 0.0)
    wanted = fast.model.diffusion_model.state_dict()
    before = {name: weight.clone() for name, weight in nano.model.diffusion_model.state_dict().items()}

    text = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT))
    few = fast.model.model_config.distilled
    spec = PathSpec.parse(few.path)
    values = {"mu": 1.1, "sigma": 1.0, "depth_mu": 1.1, "depth_sigma": 1.0, "start_rgb": 1.0, "start_depth": 1.0}
    values |= {name: value for name in values if (value := getattr(spec, name)) is not None}
    path = MFPath.execute(few.sampler, few.steps, shape=spec.kind, points="", restarts="", **values).result[0]
    latent = MFEmptyLatent.execute(128, 128, 1).result[0]
    settings = {"seed": SEED, "mode": "auto", "steps": 50, "cfg": 1.0, "tilt": 5.0, "refine_depth": False}

    def made(model, **other):
        result = MFSampler.execute(
            model=model, positive=text, negative=text, latent=latent, **({"path": path} | settings | other)
        ).result
        return [result[0]["samples"], result[1]["samples"]]

    def error(found, wanted) -> float:
        return max(float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True))

    pictures = {"fast": made(fast), "nano": made(nano), "with_lora": made(with_lora)}
    of_own_steps = list(notices)
    made(fast, path=None, steps=13)
    with_lora.patch_model()
    patched = with_lora.model.diffusion_model.state_dict()
    changed = {name for name in wanted if not torch.equal(wanted[name], before[name])}

    model = load_model(folder, dtype=torch.float32)
    noise = comfy.sample.prepare_noise(NestedTensor([torch.zeros_like(stream) for stream in pictures["fast"]]), SEED)
    tokens = tuple(stream.flatten(2).transpose(1, 2).contiguous() for stream in noise.unbind())
    out = sample(
        model,
        text[0][0],
        (8, 8),
        mode="joint",
        cfg=1.0,
        noise=tokens,
        path=spec.build(few.steps, model.schedule),
        solver=few.sampler,
    )
    rollout = [stream.transpose(1, 2).unflatten(2, (8, 8)) for stream in out]
    pixels = [vae.decode(pictures[name][0]) for name in ("fast", "with_lora")]
    results = {
        "steps": few.steps,
        "said": said,
        "notices": [of_own_steps, notices[len(of_own_steps) :]],
        "not_loaded": [line for line in warned if "not loaded" in line],
        "changed": len(changed),
        "patched": len(with_lora.patches),
        "weights": max(float((patched[name] - wanted[name]).abs().max()) for name in wanted),
        "latents": error(pictures["with_lora"], pictures["fast"]),
        "pixels": float((pixels[0] - pixels[1]).abs().max()),
        "rollout": error(pictures["fast"], rollout),
        "other_than_nano": error(pictures["nano"], pictures["fast"]),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
