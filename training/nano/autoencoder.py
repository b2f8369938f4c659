"""Fit the built-in model's autoencoder: overlapping linear windows, then the network that cleans their decoding.

    python -m mforce.training.nano.autoencoder --scenes FOLDER --out FILE [--linear-steps 3000] [--steps 2500]

The encoder is done once the windows are; latents made with it stay valid while the decoder's network trains, and
``--keep-encoder`` trains a new network for an existing file without touching the encoder.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import trange

from ...mforce_core import load_autoencoder
from ...mforce_core.encoders.patch_autoencoder import PATCH, PatchAutoencoder, save_patch_autoencoder
from ...scenes import read_shards

HELD_OUT = 64
#: Images that the components are fitted to, and that the latents are standard on.
COMPONENT_IMAGES = 2048
CROP, BATCH = 64, 32
LINEAR_BATCH = 16

#: Noise on the latents while the windows are fitted: it decides what an error of the latents looks like.
LINEAR_NOISE = 0.1
#: Largest noise on the latents while the network trains. Sampled latents are never as clean as encoded ones, and how
#: far they are from it differs, so that every picture of a batch gets another level, small ones most often.
LARGEST_NOISE = 0.25
#: Weight of the differences between neighbors across the patches' borders, where seams show. Over all neighbors, or
#: with more noise, the network blurs instead.
BORDER_WEIGHT = 0.5


def read_images(folder: Path, count: int | None = None) -> Tensor:
    """Pictures of the shards in a folder, all or the first ``count``, uint8 (n, 3, H, W).

    Raises:
        ValueError: there are none, or fewer than ``count``.
    """
    parts: list[Tensor] = []
    for shard in read_shards(folder):
        parts.append(shard.rgb)
        if count is not None and sum(map(len, parts)) >= count:
            break
    images = torch.cat(parts)
    if count is not None and len(images) < count:
        raise ValueError(f"{folder} has {len(images)} pictures; {count} were asked for.")
    return images[:count]


def to_float(images: Tensor) -> Tensor:
    """uint8 -> [-1, 1]."""
    return images.float() / 127.5 - 1


@torch.no_grad()
def psnr(model: PatchAutoencoder, images: Tensor) -> float:
    """Mean PSNR in dB of the round trip of uint8 images, pixels in [0, 1]."""
    target = to_float(images)
    error = (model.decode(model.encode(target)).clamp(-1, 1) - target) / 2
    return float((-10 * error.square().mean((1, 2, 3)).clamp(min=1e-10).log10()).mean())


def random_crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """(BATCH, 3, CROP, CROP) in [-1, 1], at corners on the patch grid so that seams lie where they will."""
    rows = torch.randint(len(images), (BATCH,), generator=generator)
    corners = torch.randint((images.shape[-1] - CROP) // 16 + 1, (BATCH, 2), generator=generator) * 16
    return to_float(
        torch.stack([images[i, :, y : y + CROP, x : x + CROP] for i, (y, x) in zip(rows, corners, strict=True)])
    )


def fit_windows(model: PatchAutoencoder, images: Tensor, steps: int, generator: torch.Generator) -> None:
    """Both linear maps together, from the principal components on, with noise between them."""
    model.requires_grad_(False)
    parameters = [*model.components.parameters(), *model.inverse.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, lr=2e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in trange(steps, unit="step", desc="windows"):
        target = to_float(images[torch.randint(len(images), (LINEAR_BATCH,), generator=generator)])
        latent = model.encode(target)
        noise = torch.randn(latent.shape, generator=generator)
        error = model.rough(latent + LINEAR_NOISE * latent.std() * noise) - target
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
        schedule.step()
    model.requires_grad_(False)
    model.standardize(to_float(images[:COMPONENT_IMAGES]))


def train_cleaning(
    model: PatchAutoencoder, images: Tensor, steps: int, share: float, generator: torch.Generator
) -> None:
    """The network that takes away what the linear decoding leaves, on latents of many levels of noise.

    Of what it learns to add it keeps ``share``: all of it leaves the patches' borders softer than their insides.
    """
    network = model.requires_grad_(False).cleaning.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in trange(steps, unit="step", desc="cleaning"):
        target = random_crops(images, generator)
        with torch.no_grad():
            latent = model.encode(target)
            level = LARGEST_NOISE * torch.rand(len(latent), 1, 1, 1, generator=generator).square()
            rough = model.rough(latent + level * torch.randn(latent.shape, generator=generator))
        with torch.autocast("cpu", torch.bfloat16):
            seams = model.seams(rough.contiguous(memory_format=torch.channels_last))
        error = rough + seams.float() - target
        down, across = error.diff(dim=2)[:, :, PATCH - 1 :: PATCH], error.diff(dim=3)[..., PATCH - 1 :: PATCH]
        borders = down.abs().mean() + across.abs().mean()
        loss = error.abs().mean() + 2 * error.square().mean() + BORDER_WEIGHT * borders
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.requires_grad_(False)
    for parameter in model.cleaning[-1].parameters():
        parameter.mul_(share)


def train(
    scenes: Path,
    out: Path,
    *,
    steps: int,
    linear_steps: int = 3000,
    window: int = 16,
    cleaning_width: int = 96,
    cleaning_share: float = 0.4,
    image_count: int | None = None,
    seed: int = 0,
    keep_encoder: bool = False,
) -> dict[str, float]:
    """Fit and write the autoencoder; returns (and logs beside it) the held-out PSNR before and after cleaning.

    Args:
        scenes: folder of shards.
        out: file to write; with ``keep_encoder`` its linear maps stay.
        linear_steps, steps: for the windows and for the network; 0 leaves the principal components, or the network
            without effect.
        window: side in pixels; 8 has no overlap.
        cleaning_width: channels of the network.
        cleaning_share: what it adds, as a share of what it learned to add.
        image_count: how many pictures are used, the first ones; all by default.
    """
    images = read_images(scenes, image_count)
    if len(images) <= HELD_OUT:
        raise ValueError(f"{scenes} has {len(images)} images; it needs more than the {HELD_OUT} held out.")
    held_out, images = images[:HELD_OUT], images[HELD_OUT:]
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    started = time.perf_counter()
    if keep_encoder:
        kept = load_autoencoder(out, dtype=torch.float32)
        if not isinstance(kept, PatchAutoencoder):
            raise ValueError(f"{out} is not an autoencoder of this kind.")
        model = PatchAutoencoder(window=kept.components.kernel_size[0], cleaning_width=cleaning_width)
        model.components, model.inverse = kept.components, kept.inverse
        model.close_cleaning()
    else:
        model = PatchAutoencoder(window=window, cleaning_width=cleaning_width)
        model.set_principal_components(to_float(images[:COMPONENT_IMAGES]))
        if linear_steps and model.overlap:
            fit_windows(model, images, linear_steps, generator)
        save_patch_autoencoder(model, out)
    result = {"linear_psnr": psnr(model, held_out)}
    if steps:
        train_cleaning(model, images, steps, cleaning_share, generator)
        save_patch_autoencoder(model, out)
    result |= {
        "psnr": psnr(model, held_out),
        "linear_steps": linear_steps if model.overlap and not keep_encoder else 0,
        "steps": steps,
        "cleaning_share": cleaning_share,
        "seconds": time.perf_counter() - started,
    }
    out.with_name("autoencoder_log.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=Path, required=True, help="folder of shards of scenes")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--linear-steps", type=int, default=3000, help="steps for the windows (default 3000)")
    parser.add_argument("--steps", type=int, default=2500, help="steps for the cleaning network (default 2500)")
    parser.add_argument("--window", type=int, default=16, help="side of a window in pixels, 8 to 24 (default 16)")
    parser.add_argument("--cleaning-width", type=int, default=96, help="channels of the network (default 96)")
    parser.add_argument(
        "--cleaning-share", type=float, default=0.4, help="what it adds, of what it learned to add (default 0.4)"
    )
    parser.add_argument("--images", type=int, dest="image_count", help="use only so many, the first ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-encoder", action="store_true", help="train a new network for the file's linear maps")
    args = vars(parser.parse_args())
    args["out"].parent.mkdir(parents=True, exist_ok=True)
    print(train(**args))


if __name__ == "__main__":
    main()
