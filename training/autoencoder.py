"""Makes a tiny autoencoder (`mforce_core.tiny_autoencoder`) for shards of rendered scenes.

The encoder is computed, not trained: the principal components of 8x8 pixels. It is ready in seconds, so the
diffusion model can be trained on its latents while this script trains the decoder.

    python -m mforce.training.autoencoder SHARDS OUT --minutes 20
    python -m mforce.training.autoencoder SHARDS OUT --steps 4000

SHARDS is a folder of safetensors files, each with `rgb` uint8 (n, 3, H, W). OUT receives
`encoder.safetensors` (at once: the final encoder with an untrained decoder; one that is already there is kept
and used), `autoencoder.safetensors` (the finished model), `checkpoint.safetensors` (continue by giving the
same command again) and `log.jsonl`.

Made for a few CPU cores: bf16 convolutions in channels-last order, small random crops for most of the run and
whole images at its end, because the group norms of the middle blocks see statistics of the whole input.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import avg_pool2d, conv2d, l1_loss, mse_loss, pad, pixel_unshuffle

from ..mforce_core.tiny_autoencoder import LATENT_CHANNELS, WIDTH, TinyAutoencoder, save_tiny_autoencoder

CALIBRATION_IMAGES = 512
# The layers of the encoder before this one only rearrange pixels; see `set_principal_components`.
FIRST_PROJECTING_LAYER = 7


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("shards", type=Path, help="folder of safetensors files with rgb uint8 (n, 3, H, W)")
    add("out", type=Path, help="folder for the checkpoint, the log and the finished model")
    add("--steps", type=int, help="length of the run in optimiser steps")
    add("--minutes", type=float, help="length of the run in minutes; the schedule follows the clock")
    add("--batch-size", type=int, default=8, help="crops a step")
    add("--crop", type=int, default=64, help="side of the random crops")
    add("--whole-images", type=float, default=0.15, help="last part of the run, on whole images")
    add("--whole-batch-size", type=int, default=4, help="images a step in that part")
    add("--lr", type=float, default=1e-3, help="peak learning rate; warmup, then cosine to zero")
    add("--weight-decay", type=float, default=1e-4)
    add("--ema", type=float, default=0.995, help="decay of the averaged weights, which are the result")
    add("--latent-noise", type=float, default=0.08, help="noise on the latent, in latent deviations")
    add("--held-out", type=int, default=64, help="images of the first shard kept for validation")
    add("--validate-every", type=int, default=250, help="steps between validations and checkpoints")
    add("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.steps is None and options.minutes is None:
        parser.error("say how long to train: --steps, --minutes, or both (the first reached ends the run)")
    return options


def read_images(folder: Path) -> torch.Tensor:
    """All `rgb` of the folder's shards, uint8 (n, 3, H, W), in the order of the file names."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise ValueError(f"There are no .safetensors shards in {folder}.")
    images = []
    for path in paths:
        with safe_open(path, framework="pt") as shard:
            if "rgb" not in shard.keys():  # noqa: SIM118
                raise ValueError(f"{path} has no tensor named rgb, so it is not a shard of scenes.")
            images.append(shard.get_tensor("rgb"))
    return torch.cat(images)


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 3, H, W) -> [0, 1], channels-last."""
    return images.float().div_(255).contiguous(memory_format=torch.channels_last)


def random_crops(images: torch.Tensor, count: int, side: int) -> torch.Tensor:
    """Random, randomly mirrored crops as uint8 (count, 3, side, side)."""
    height, width = images.shape[-2:]
    crops = []
    for index in torch.randint(len(images), (count,)).tolist():
        top = int(torch.randint(height - side + 1, ()))
        left = int(torch.randint(width - side + 1, ()))
        crop = images[index, :, top : top + side, left : left + side]
        crops.append(crop.flip(-1) if torch.rand(()) < 0.5 else crop)
    return torch.stack(crops)


def edge_loss(output: torch.Tensor, target: torch.Tensor, scales: int = 3) -> torch.Tensor:
    """L1 distance of neighbouring pixels' differences at full, half and quarter size: sharp edges."""
    total = output.new_zeros(())
    difference = output - target
    for scale in range(scales):
        if scale:
            difference = avg_pool2d(difference, 2)
        total = total + difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return total / scales


def loss_of(model: TinyAutoencoder, target: torch.Tensor, latent_noise: float) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            rearranged = pixel_unshuffle(pixel_unshuffle(target, 2), 2)
            rearranged = pad(rearranged, (0, 0, 0, 0, 0, WIDTH - rearranged.shape[1]))
            rearranged = rearranged.contiguous(memory_format=torch.channels_last)
            latent = model.taesd_encoder[FIRST_PROJECTING_LAYER:](rearranged)
            latent = latent + torch.randn_like(latent) * (latent_noise * latent.float().std())
        output = model.taesd_decoder(latent)
    output = output.float()
    return l1_loss(output, target) + 2 * mse_loss(output, target) + edge_loss(output, target)


def keep_signal_size(model: TinyAutoencoder) -> None:
    """Initialisation that keeps the signal's size from end to end, so that a short run is spent on learning.

    Every residual block starts as the identity wherever its input is not negative, as after another block,
    and the decoder's enlarging convolutions start as near copies.
    """
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Conv2d):
            continue
        torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            torch.nn.init.zeros_(module.bias)
        if name.endswith(("conv.4", "pool.3")):
            torch.nn.init.zeros_(module.weight)
        elif name.startswith("taesd_decoder.") and module.bias is None and module.kernel_size == (3, 3):
            copy = torch.nn.init.dirac_(torch.empty_like(module.weight))
            module.weight.data.mul_(0.5).add_(copy)


@torch.no_grad()
def set_principal_components(model: TinyAutoencoder, images: torch.Tensor) -> None:
    """Makes the encoder the 32 principal components of 8x8 pixels, a good latent that needs no learning.

    The first two reductions become exact rearrangements of pixels to channels (3 -> 12 -> 48), which
    training may skip. The third projects to the components with both signs, which the ReLUs pass, and the
    last layer takes their difference. A component's deviation is the square root of what it is in the data:
    the large ones stay dominant, yet the small ones survive some noise.
    """
    layers = model.taesd_encoder
    layers[0].weight.zero_()
    for channel in range(3):
        layers[0].weight[channel, channel, 1, 1] = 1
    for layer, channels in ((layers[2], 3), (layers[6], 12)):
        layer.weight.zero_()
        for channel in range(channels):
            for row in range(2):
                for column in range(2):
                    layer.weight[4 * channel + 2 * row + column, channel, 1 + row, 1 + column] = 1

    patches = images.float() / 255
    for _ in range(3):
        patches = pixel_unshuffle(patches, 2)
    patches = patches.permute(0, 2, 3, 1).flatten(0, 2)
    variances, components = torch.linalg.eigh(torch.cov(patches.T))
    variances, components = variances[-LATENT_CHANNELS:], components[:, -LATENT_CHANNELS:].T
    deviations = variances.clamp_min(1e-6).sqrt()
    projection = components / deviations.sqrt()[:, None] / deviations.max().sqrt()
    layers[10].weight.zero_()
    layers[10].weight[:LATENT_CHANNELS, :48, 1:, 1:] = projection.unflatten(1, (48, 2, 2))
    layers[10].weight[LATENT_CHANNELS:] = -layers[10].weight[:LATENT_CHANNELS]
    layers[14].weight.zero_()
    layers[14].weight[:, :LATENT_CHANNELS, 1, 1] = torch.eye(LATENT_CHANNELS)
    layers[14].weight[:, LATENT_CHANNELS:, 1, 1] = -torch.eye(LATENT_CHANNELS)
    layers[14].bias.copy_(-projection @ patches.mean(dim=0))


@torch.no_grad()
def encode_principal_components(model: TinyAutoencoder, images: torch.Tensor) -> torch.Tensor:
    """`model.encode` of uint8 images (B, 3, H, W) for an encoder made by :func:`set_principal_components`.

    The encoder is linear, so one strided convolution does its work, some hundred times faster.
    """
    layers = model.taesd_encoder
    quarter = pixel_unshuffle(pixel_unshuffle(images.float() / 255, 2), 2)
    weight = layers[10].weight[:LATENT_CHANNELS, : quarter.shape[1], 1:, 1:]
    latent = conv2d(quarter, weight, layers[14].bias, stride=2)
    return pixel_unshuffle(latent / model.vae_scale + model.vae_shift, 2)


@torch.no_grad()
def psnr(model: TinyAutoencoder, images: torch.Tensor, batch_size: int = 16) -> float:
    """Mean over the images of the PSNR in dB of the round trip, pixels in [0, 1]."""
    values = []
    for batch in images.split(batch_size):
        target = to_float(batch)
        with torch.autocast("cpu", torch.bfloat16):
            output = model.decode(model.encode(target * 2 - 1))
        output = output.float().mul(0.5).add(0.5).clamp(0, 1)
        values.append(-10 * (output - target).square().mean(dim=(1, 2, 3)).clamp_min(1e-10).log10())
    return float(torch.cat(values).mean())


@torch.no_grad()
def calibrate(model: TinyAutoencoder, images: torch.Tensor, batch_size: int = 16) -> None:
    """Sets `vae_scale` and `vae_shift` so that the latents of `images` have zero mean and unit deviation."""
    model.vae_scale.fill_(1.0)
    model.vae_shift.fill_(0.0)
    latents = torch.cat([model.encode(to_float(batch) * 2 - 1) for batch in images.split(batch_size)])
    model.vae_scale.copy_(latents.std())
    model.vae_shift.copy_(-latents.mean() / latents.std())


def save_checkpoint(path: Path, model, average, optimizer, progress: dict) -> None:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    partial = path.with_suffix(".partial")  # stopped while writing, a run keeps its previous checkpoint
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial,
              metadata={"progress": json.dumps(progress)})  # fmt: skip
    partial.replace(path)


def load_checkpoint(path: Path, model, average, optimizer) -> dict:
    with safe_open(path, framework="pt") as file:
        progress = json.loads(file.metadata()["progress"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for prefix, module in (("model.", model), ("average.", average)):
        own = {name: value for name, value in tensors.items() if name.startswith(prefix)}
        module.load_state_dict({name.removeprefix(prefix): value for name, value in own.items()})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def train(options: argparse.Namespace) -> TinyAutoencoder:
    images = read_images(options.shards)
    if len(images) <= options.held_out:
        raise ValueError(
            f"{options.shards} has {len(images)} images; it needs more than the {options.held_out} held out."
        )
    held_out, images = images[: options.held_out], images[options.held_out :]
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "checkpoint.safetensors"

    torch.manual_seed(options.seed)
    model = TinyAutoencoder()
    keep_signal_size(model)
    encoder_file = options.out / "encoder.safetensors"
    if encoder_file.exists():
        # Other models may already use its latents, and other shards would give another encoder.
        tensors = load_file(encoder_file)
        own = {name: value for name, value in tensors.items() if not name.startswith("taesd_decoder.")}
        model.load_state_dict(own, strict=False)
    else:
        set_principal_components(model, images[torch.randperm(len(images))[:CALIBRATION_IMAGES]])
        calibrate(model, images[torch.randperm(len(images))[:CALIBRATION_IMAGES]])
        save_tiny_autoencoder(model, encoder_file)
    model.taesd_encoder.requires_grad_(False)
    model.to(memory_format=torch.channels_last)
    average = TinyAutoencoder().to(memory_format=torch.channels_last).requires_grad_(False)
    average.load_state_dict(model.state_dict())
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=options.lr, betas=(0.9, 0.99), weight_decay=options.weight_decay
    )

    step, seconds_before = 0, 0.0
    if checkpoint.exists():
        done = load_checkpoint(checkpoint, model, average, optimizer)
        step, seconds_before = done["step"], done["seconds"]
        torch.manual_seed(options.seed + step)  # other crops than those already seen
    started = time.monotonic()
    first_step = step

    with (options.out / "log.jsonl").open("a", buffering=1) as log:
        while True:
            seconds = seconds_before + time.monotonic() - started
            fraction = max(
                step / options.steps if options.steps else 0.0,
                seconds / (60 * options.minutes) if options.minutes else 0.0,
            )
            finished = fraction >= 1
            if finished or (step % options.validate_every == 0 and step > first_step):
                quality = psnr(average, held_out)
                record = {"step": step, "seconds": round(seconds), "held_out_psnr": quality}
                log.write(json.dumps(record) + "\n")
                save_checkpoint(checkpoint, model, average, optimizer, {"step": step, "seconds": seconds})
            if finished:
                break

            whole = fraction > 1 - options.whole_images
            side = min(images.shape[-2:]) if whole else options.crop
            batch = random_crops(images, options.whole_batch_size if whole else options.batch_size, side)
            rate = options.lr * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * fraction))
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = loss_of(model, to_float(batch), options.latent_noise)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            decay = min(options.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
            if step % 25 == 0:
                record = {"step": step, "seconds": round(seconds), "loss": loss.item(), "lr": rate}
                log.write(json.dumps(record) + "\n")

        save_tiny_autoencoder(average, options.out / "autoencoder.safetensors")
        log.write(json.dumps({"step": step, "final_held_out_psnr": psnr(average, held_out)}) + "\n")
    return average


if __name__ == "__main__":
    train(parse_arguments())
