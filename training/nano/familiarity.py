"""Learn which pictures nano knows: ``python -m mforce.training.nano.familiarity --latents FOLDER --out FILE``.

The latents are those that nano is trained on, as ``mforce data encode`` wrote them; the file belongs beside the
autoencoder that made them.
"""

import argparse
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ...mforce_core.encoders.familiarity import fit_familiarity

#: Pictures that the statistics are taken from.
COUNT = 20000


def read_latents(folder: Path, count: int) -> Tensor:
    """The first rows of every shard, (n, C, h, w), n about ``count``. Raises ValueError where there are none."""
    paths = sorted(folder.glob("latents-*.safetensors"))
    if not paths:
        raise ValueError(f"{folder} holds no encoded samples: run mforce data encode first.")
    parts = []
    for path in paths:
        with safe_open(path, framework="pt") as file:
            parts.append(file.get_slice("rgb")[: -(-count // len(paths))])
    return torch.cat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latents", type=Path, required=True, help="folder that mforce data encode wrote")
    parser.add_argument("--out", type=Path, required=True, help="file to write, beside the autoencoder")
    args = parser.parse_args()
    latents = read_latents(args.latents, COUNT)
    statistics = fit_familiarity(latents)
    statistics.save(args.out)
    print(f"{len(latents)} pictures, limit {statistics.limit:.2f}")


if __name__ == "__main__":
    main()
