"""Fit the built-in model's autoencoder: principal components, then the network that cleans their decoding.

    python -m mforce.training.nano.autoencoder --scenes FOLDER --out FILE [--steps 3000]

The encoder is done once the components are; latents made with it stay valid while the decoder's network trains, and
``--keep-encoder`` trains that network again for an existing file without touching the encoder.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor
from tqdm import trange

from ...mforce_core import load_autoencoder
from ...mforce_core.encoders.patch_autoencoder import PatchAutoencoder, save_patch_autoencoder
from ...scenes import read_shards

HELD_OUT = 64
#: Images that the components are fitted to.
COMPONENT_IMAGES = 2048
CROP, BATCH = 64, 32

#: Noise on the latents while the network trains: sampled latents are never as clean as encoded ones.
LATENT_NOISE = 0.05


def read_images(folder: Path) -> Tensor:
    """All pictures of the shards in a folder, uint8 (n, 3, H, W). Raises ValueError where there are none."""
    return torch.cat([shard.rgb for shard in read_shards(folder)])


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


def train(scenes: Path, out: Path, *, steps: int, seed: int, keep_encoder: bool) -> dict[str, float]:
    """Fit and write the autoencoder; returns (and logs beside it) the held-out PSNR before and after cleaning."""
    images = read_images(scenes)
    if len(images) <= HELD_OUT:
        raise ValueError(f"{scenes} has {len(images)} images; it needs more than the {HELD_OUT} held out.")
    held_out, images = images[:HELD_OUT], images[HELD_OUT:]
    torch.manual_seed(seed)
    model = load_autoencoder(out, dtype=torch.float32) if keep_encoder else PatchAutoencoder()
    if not isinstance(model, PatchAutoencoder):
        raise ValueError(f"{out} is not an autoencoder of this kind.")
    if not keep_encoder:
        model.set_principal_components(to_float(images[:COMPONENT_IMAGES]))
        save_patch_autoencoder(model, out)
    result = {"linear_psnr": psnr(model, held_out)}

    network = model.requires_grad_(False).cleaning.requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    started = time.perf_counter()
    for _ in trange(steps, unit="step"):
        target = random_crops(images, generator)
        with torch.no_grad():
            latent = model.encode(target)
            rough = model.inverse(
                torch.nn.functional.pixel_shuffle(latent + LATENT_NOISE * torch.randn_like(latent), 2)
            )
        with torch.autocast("cpu", torch.bfloat16):
            seams = model.seams(rough.contiguous(memory_format=torch.channels_last))
        error = rough + seams.float() - target
        loss = error.abs().mean() + 2 * error.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    save_patch_autoencoder(model, out)
    result |= {"psnr": psnr(model, held_out), "steps": steps, "seconds": time.perf_counter() - started}
    out.with_name("autoencoder_log.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-encoder", action="store_true")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    print(train(args.scenes, args.out, steps=args.steps, seed=args.seed, keep_encoder=args.keep_encoder))


if __name__ == "__main__":
    main()
