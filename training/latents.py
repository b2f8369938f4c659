"""Encode rendered scenes once, so that training reads latents instead of running the autoencoder.

``python -m mforce.training.latents --scenes FOLDER --autoencoder FILE --out FOLDER`` writes one shard of latents
a shard of scenes, as ``mforce data encode`` does for data of any kind (see :mod:`.data.encode`).
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from ..mforce_core.text import WordTextEncoder
from ..scenes import read_shards
from .data.encode import EncodeSettings, ShardEncoder
from .data.order import batch_indices
from .data.shards import find_shards


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
        """Indices of a step's samples; see :func:`.data.order.batch_indices`."""
        return batch_indices(len(self), step, batch_size, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--autoencoder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    height, width = read_shards(args.scenes)[0].rgb.shape[2:]
    encode = ShardEncoder(EncodeSettings(str(args.autoencoder), None, (height, width)), args.out)
    for shard in tqdm(find_shards([str(args.scenes)]), unit="shard"):
        encode(shard)


if __name__ == "__main__":
    main()
