"""Held-out evaluation of the built-in model on freshly rendered scenes: all three tasks and prompt colors.

- ``i2d``: depth from the rendered image against the exact depth, after median scaling; beside it the error of one depth
  everywhere.
- ``joint``: depth sampled from the caption against i2d run on the image sampled with it.
- ``d2i``: i2d of the image made from the exact depth, against that depth.
- ``color``: prompts that name one object; the share whose dominant saturated hue is the named one.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..mforce_core import decode_depth, encode_depth, load_autoencoder, load_model, load_text_encoder, sample
from ..mforce_core.model.tokens import latents_to_tokens, patches_to_tokens, tokens_to_latents, tokens_to_patches
from ..mforce_core.release import LOG2_ALPHA, NANO_SIZE, PATCH_SIZE, STEPS, Mode
from ..scenes import captions, render, sample_layouts
from ..scenes.vocabulary import COLOR_HUES, COLORS, FLOORS, SHAPES
from .metrics import abs_rel, align_median, constant_depth, delta1, dominant_hue

GRID = (NANO_SIZE // PATCH_SIZE, NANO_SIZE // PATCH_SIZE)
BATCH = 32

Progress = Callable[[int, int], None]


def color_prompts() -> list[tuple[str, str]]:
    """(prompt, color): every color, shape and floor once; "a red sphere on a wooden floor"."""
    return [
        (f"{'an' if color[0] in 'aeiou' else 'a'} {color} {shape} on a {floor} floor", color)
        for color in COLORS
        for shape in SHAPES
        for floor in FLOORS
    ]


def evaluate_nano(
    model_path: Path,
    text_encoder_path: Path,
    autoencoder_path: Path,
    *,
    scenes: int = 256,
    seed: int = 1_000_000,
    steps: int = STEPS,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, float]:
    """Measure a small model.

    Args:
        model_path, text_encoder_path, autoencoder_path: files or folders; the text encoder is one of words.
        scenes: number of held-out scenes.
        seed: of the scenes and of every starting noise; training uses small seeds.
        steps: Euler steps of every rollout.
        progress: called with (finished, all) denoising steps.

    Returns:
        Metric name -> value; AbsRel and delta1 are means over scenes, NaN-free.
    """
    model = load_model(model_path, device=device, dtype=torch.float32)
    text_encoder, autoencoder = load_text_encoder(text_encoder_path), load_autoencoder(autoencoder_path, device=device)
    layout = sample_layouts(scenes, seed)
    rgb, depth = render(layout, NANO_SIZE)
    prompts = captions(layout)
    null = text_encoder.encode([""])
    colors = color_prompts()
    total = steps * (5 * -(-scenes // BATCH) + -(-len(colors) // BATCH))
    done = 0

    def step(*_: object) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    def run(text: Tensor, mode: Mode, **given: Any) -> tuple[Tensor, Tensor]:
        return sample(model, text, GRID, mode=mode, steps=steps, null_text=null, seed=seed, callback=step, **given)

    def image_to_depth(tokens: Tensor) -> Tensor:
        _, sampled = run(null.expand(len(tokens), -1, -1), "i2d", rgb=tokens)
        return decode_depth(tokens_to_patches(sampled, GRID)).cpu()

    columns: dict[str, list[Tensor]] = {}

    def note(name: str, prediction: Tensor, reference: Tensor) -> None:
        aligned = align_median(prediction, reference)
        columns.setdefault(f"{name}_absrel", []).append(abs_rel(aligned, reference))
        columns.setdefault(f"{name}_delta1", []).append(delta1(aligned, reference))

    for rows in _batches(scenes):
        reference = depth[rows]
        tokens = latents_to_tokens(autoencoder.encode(rgb[rows].to(device) * 2 - 1))
        note("i2d", image_to_depth(tokens), reference)
        note("constant", constant_depth(reference), reference)

        text = text_encoder.encode([prompts[i] for i in rows])
        joint_rgb, joint_depth = run(text, "joint", log2_alpha=LOG2_ALPHA)
        note("joint", decode_depth(tokens_to_patches(joint_depth, GRID)).cpu(), image_to_depth(joint_rgb))

        clean = patches_to_tokens(encode_depth(reference))
        made, _ = run(text, "d2i", depth=clean)
        note("d2i", image_to_depth(made), reference)

    hues = torch.tensor([COLOR_HUES[name] for name in COLORS])
    right = 0
    for rows in _batches(len(colors)):
        text = text_encoder.encode([colors[i][0] for i in rows])
        tokens, _ = run(text, "joint", log2_alpha=LOG2_ALPHA)
        images = autoencoder.decode(tokens_to_latents(tokens, GRID)).clamp(-1, 1).cpu() / 2 + 0.5
        right += sum(
            dominant_hue(image, hues) == COLORS.index(colors[i][1]) for image, i in zip(images, rows, strict=True)
        )
    metrics = {name: float(torch.cat(values).mean()) for name, values in columns.items()}
    return metrics | {"color_accuracy": right / len(colors), "scenes": scenes, "steps": steps, "seed": seed}


def _batches(count: int) -> Iterator[list[int]]:
    for first in range(0, count, BATCH):
        yield list(range(first, min(first + BATCH, count)))
