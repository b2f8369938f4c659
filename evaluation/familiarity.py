"""How well a small model tells pictures that it does not know: ``python -m mforce.evaluation.familiarity PICTURES...``

Measured on renders that training never saw, whole and as views, which it should know, and on pictures of the world,
which it should not.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..mforce_core import load_autoencoder
from ..mforce_core.encoders.patch_autoencoder import PatchAutoencoder
from ..mforce_core.picture.reading import read_picture
from ..mforce_core.placement import CROP, place
from ..mforce_core.release import NANO_SIZE
from ..scenes import render, sample_layouts, sample_views
from . import intervals
from .judge import NANO

#: Of the scenes; training uses small ones.
_SEED = 3_000_000


def read_pictures(paths: list[Path]) -> Tensor:
    """(n, 3, NANO_SIZE, NANO_SIZE) in [0, 1]: the largest square in the middle of each."""
    pictures = []
    for path in paths:
        picture = read_picture(path).image
        placement = place((picture.height, picture.width), (NANO_SIZE, NANO_SIZE), CROP)
        pictures.append(torch.from_numpy(np.array(placement.place_photo(picture))).permute(2, 0, 1) / 255)
    return torch.stack(pictures)


def measure(autoencoder: PatchAutoencoder, photographs: Tensor, *, scenes: int = 1000) -> dict:
    """Shares of pictures that are said to be unfamiliar, with intervals.

    Args:
        autoencoder: with its familiarity.
        photographs: (n, 3, H, W) in [0, 1].
        scenes: renders of each kind.
    """
    layout = sample_layouts(scenes, _SEED)
    views = sample_views(layout, _SEED, share=1.0)[0]
    kinds = {
        "scenes": render(layout, NANO_SIZE, compiled=True)[0],
        "views": render(layout, NANO_SIZE, camera=views, compiled=True)[0],
        "photographs": photographs,
    }

    def unfamiliar(pictures: Tensor) -> Tensor:
        parts = [autoencoder.is_unfamiliar(autoencoder.encode(part * 2 - 1)) for part in pictures.split(128)]
        return torch.cat(parts)

    return intervals.as_json({name: intervals.share(unfamiliar(pictures)) for name, pictures in kinds.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, nargs="+", help="pictures that are no renders of this project")
    parser.add_argument("--vae", type=Path, default=NANO, help="autoencoder with its familiarity beside it")
    parser.add_argument("--scenes", type=int, default=1000, help="renders of each kind (default 1000)")
    args = parser.parse_args()
    autoencoder = load_autoencoder(args.vae)
    if not isinstance(autoencoder, PatchAutoencoder) or autoencoder.familiarity is None:
        parser.error(f"{args.vae} has no familiarity.safetensors beside its autoencoder")
    print(measure(autoencoder, read_pictures(args.pictures), scenes=args.scenes))


if __name__ == "__main__":
    main()
