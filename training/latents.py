"""Encode rendered scenes once, so that training reads latents instead of running the autoencoder.

``python -m mforce.training.latents --scenes FOLDER --autoencoder FILE --out FOLDER`` writes one shard of latents
a shard of scenes: ``rgb`` (n, C, h, w) float16, ``depth`` (n, H, W) float16 in metres, captions in the metadata.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from ..mforce_core import load_autoencoder
from ..mforce_core.autoencoder import Autoencoder
from ..mforce_core.patch_autoencoder import PatchAutoencoder
from ..mforce_core.text import WordTextEncoder
from ..mforce_core.tiny_autoencoder import TinyAutoencoder


class LatentDataset:
    """All latents of a folder, in memory.

    Attributes:
        rgb: (n, C, h, w) float16; depth: (n, H, W) float16 metres; token_ids: (n, T) int64.
    """

    def __init__(self, folder: Path, text_encoder: WordTextEncoder) -> None:
        shards = sorted(folder.glob("latents-*.safetensors"))
        if not shards:
            raise FileNotFoundError(
                f"{folder} holds no latents-*.safetensors: run python -m mforce.training.latents first"
            )
        rgb, depth, captions = [], [], []
        for shard in shards:
            with safe_open(shard, framework="pt") as handle:
                rgb.append(handle.get_tensor("rgb"))
                depth.append(handle.get_tensor("depth"))
                captions += json.loads(handle.metadata()["captions"])
        self.rgb, self.depth = torch.cat(rgb), torch.cat(depth)
        self.token_ids = text_encoder.tokenize(captions)

    def __len__(self) -> int:
        return len(self.rgb)

    def batch_indices(self, step: int, batch_size: int, seed: int) -> Tensor:
        """Indices of a step: a fresh permutation every epoch, a function of the arguments alone so that a resumed run
        sees the data that an uninterrupted one would."""
        first = step * batch_size
        rows: list[int] = []
        while len(rows) < batch_size:
            epoch, offset = divmod(first + len(rows), len(self))
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
            rows += order[offset : offset + batch_size - len(rows)].tolist()
        return torch.tensor(rows)


@torch.no_grad()
def encode_shard(
    scenes: Path, out: Path, autoencoder: Autoencoder | TinyAutoencoder | PatchAutoencoder, *, batch_size: int = 64
) -> None:
    """Encode one shard of scenes; the file appears only when it is complete."""
    with safe_open(scenes, framework="pt") as handle:
        images, depth, metadata = handle.get_tensor("rgb"), handle.get_tensor("depth"), handle.metadata()
    latents = [autoencoder.encode(batch.float() / 127.5 - 1).to(torch.float16) for batch in images.split(batch_size)]
    partial = out.with_suffix(".part")
    save_file(
        {"rgb": torch.cat(latents), "depth": depth.to(torch.float16)},
        partial,
        metadata={"captions": metadata["captions"]},
    )
    partial.replace(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    autoencoder = load_autoencoder(args.autoencoder)
    for scenes in tqdm(sorted(args.scenes.glob("scenes-*.safetensors")), unit="shard"):
        out = args.out / scenes.name.replace("scenes-", "latents-")
        if not out.exists():
            encode_shard(scenes, out, autoencoder)


if __name__ == "__main__":
    main()
