"""The prompts of the soak: drawn by number, so that every one of them can be run again."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

TASKS = ("joint", "i2d", "d2i")
SIZES = ((96, 96), (128, 128), (128, 160), (160, 112), (192, 128))
SCENE = "yellow_sphere"
LORA = "soak.safetensors"
BUILT_IN = "nano (built-in)"
FORMATS = ("png (16-bit)", "exr", "npy")
#: Steps of a prompt that is there to be interrupted.
ENDLESS = 9999


@dataclass
class Prompt:
    """An API prompt and what is known about it.

    Attributes:
        kinds: what it varies, by name.
        files: how many files its output nodes write.
        interrupted: whether it is to be interrupted.
    """

    kinds: dict[str, Any]
    interrupted: bool
    nodes: dict[str, Any] = field(default_factory=dict)
    files: int = 0

    def add(self, node: str, **inputs: Any) -> str:
        """Append a node; its name."""
        name = f"{len(self.nodes) + 1} {node}"
        self.nodes[name] = {"class_type": node, "inputs": inputs}
        return name


def draw(seed: int, number: int, models: tuple[str, ...]) -> Prompt:
    """Prompt ``number`` of a soak.

    Args:
        models: file names in models/diffusion_models, beside the built-in model.
    """
    rng = Random(f"{seed}/{number}")
    kinds = {
        "task": rng.choice(TASKS),
        "size": rng.choice(SIZES),
        "batch": rng.randint(1, 3),
        "model": rng.choice((BUILT_IN, *models)),
        "lora": rng.random() < 0.4,
        "sampler": rng.choice(("MFSampler", "KSampler")),
        "cfg": rng.choice((1.0, 4.0)),
        "format": rng.choice(FORMATS),
        "cloud": rng.random() < 0.25,
    }
    prompt = Prompt(kinds, interrupted=number % 10 == 9)
    parts = prompt.add("MFLoadModel", model_name=BUILT_IN, weight_dtype="default")
    loaded = parts
    if kinds["model"] != BUILT_IN:
        loaded = prompt.add("MFLoadModel", model_name=kinds["model"], weight_dtype="default")
    model, clip, vae = [loaded, 0], [parts, 1], [parts, 2]
    if kinds["lora"]:
        model = [prompt.add("LoraLoaderModelOnly", model=model, lora_name=LORA, strength_model=0.5), 0]
    text = prompt.add("CLIPTextEncode", clip=clip, text=rng.choice(("a yellow sphere", "a red cube on a tiled floor")))
    empty = prompt.add("CLIPTextEncode", clip=clip, text="")
    latent = [_latent(prompt, vae), 0]
    steps = ENDLESS if prompt.interrupted else rng.randint(1, 3)
    common = {
        "model": model, "positive": [text, 0], "negative": [empty, 0], "seed": number, "steps": steps,
        "cfg": kinds["cfg"], "sampler_name": "euler",
    }  # fmt: skip
    if kinds["sampler"] == "KSampler":
        sampled = [prompt.add("KSampler", latent_image=latent, scheduler="simple", denoise=1.0, **common), 0]
    else:
        sampler = prompt.add(
            "MFSampler", latent=latent, mode="auto", tilt=rng.choice((0.0, 5.0)), refine_depth=rng.random() < 0.2,
            scheduler="released", i2d_cfg=1.0, **common,
        )  # fmt: skip
        sampled = [sampler, 2]
    _save(prompt, sampled, vae)
    return prompt


def _latent(prompt: Prompt, vae: list[Any]) -> str:
    width, height = prompt.kinds["size"]
    size = {"width": width, "height": height}
    if prompt.kinds["task"] == "joint":
        return prompt.add("MFEmptyLatent", batch_size=prompt.kinds["batch"], **size)
    scene = prompt.add("MFExampleScene", scene=SCENE)
    if prompt.kinds["task"] == "i2d":
        pictures = prompt.add("RepeatImageBatch", image=[scene, 0], amount=prompt.kinds["batch"])
        return prompt.add("MFImageToDepthLatent", image=[pictures, 0], vae=vae, fit="crop", **size)
    depth = prompt.add(
        "MFEncodeDepth", depth=[scene, 1], meaning="depth (far is bright)", far_to_near=10.0, fit="crop", fill_seed=0,
        **size,
    )  # fmt: skip
    return prompt.add("MFDepthToImageLatent", depth=[depth, 0], variations=prompt.kinds["batch"])


def _save(prompt: Prompt, sampled: list[Any], vae: list[Any]) -> None:
    split = prompt.add("MFSplitLatent", latent=sampled)
    picture = prompt.add("VAEDecode", samples=[split, 0], vae=vae)
    prompt.add("SaveImage", images=[picture, 0], filename_prefix="soak/picture")
    geometry = prompt.add("MFDepthDetokenize", depth=[split, 1], image=[picture, 0], fov_degrees=65.0)
    prompt.add(
        "MFSaveDepth", depth=[geometry, 0], filename_prefix="soak/depth", format=prompt.kinds["format"], values="depth",
        near=0.0, far=0.0, exr_channel="Z", png_step=0.0,
    )  # fmt: skip
    prompt.files = 2 * prompt.kinds["batch"]
    if prompt.kinds["cloud"]:
        cloud = prompt.add(
            "MFToPointCloud", geometry=[geometry, 0], fov_degrees=0.0, edge_threshold=100.0, remove_outliers=False,
            density=1, batch_index=0, max_points=100_000,
        )  # fmt: skip
        prompt.add(
            "SavePointCloud", model_3d=[cloud, 0], viewport_state="", filename_prefix="soak/cloud", width=64, height=64
        )
        prompt.files += 1
