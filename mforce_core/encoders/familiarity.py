"""Whether a picture is like those that a small model was trained on.

nano knows rendered rooms and nothing else: its depth of a photograph means little. Its latents tell. Of each of the 32
components of a patch, four numbers describe a picture: mean, deviation, and the mean step between neighbors along rows
and columns, the last three as logarithms. Their Mahalanobis distance from the training pictures is held against a limit
that one in fifty of those exceeds. How often that is right is in docs/studies/nano.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..weights.named_parts import named_part
from ..weights.tensor_files import open_safetensors
from .latent_space import unpack_2x2

#: Lies beside the model whose training pictures it describes, and that model's autoencoder.
FILE = "familiarity.safetensors"

UNFAMILIAR = (
    "This picture is unlike the rendered scenes that nano was trained on, and its depth will be of little use: "
    "for photographs load the released model."
)

#: Share of the training pictures that are said to be unfamiliar.
_FALSE_ALARMS = 0.02
#: Smallest variance of a direction, of standardized features, that counts as such.
_LEAST_VARIANCE = 0.05
_SMALLEST = 1e-2


@dataclass(frozen=True)
class Familiarity:
    """Statistics of a set of pictures' latents.

    ``mean`` (F,) and ``whitening`` (F, F) bring features to mean 0 and covariance 1; ``limit`` is the distance beyond
    which a picture is unfamiliar.
    """

    mean: Tensor
    whitening: Tensor
    limit: float

    def distance(self, latents: Tensor) -> Tensor:
        """Mahalanobis distance (B,) of the pictures' latents (B, 128, h, w)."""
        return ((features(latents).cpu() - self.mean) @ self.whitening).norm(dim=1)

    def is_unfamiliar(self, latents: Tensor) -> Tensor:
        """(B,) bool."""
        return self.distance(latents) > self.limit

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        tensors = {"mean": self.mean, "whitening": self.whitening, "limit": torch.tensor(self.limit)}
        save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, path)


def features(latents: Tensor) -> Tensor:
    """(B, 128, h, w) -> (B, 128) float32: means, and logarithms of deviations and of mean steps along both axes."""
    parts = unpack_2x2(latents.float())
    spread = parts.flatten(2).std(2), parts.diff(dim=3).abs().mean((2, 3)), parts.diff(dim=2).abs().mean((2, 3))
    return torch.cat((parts.mean((2, 3)), *((value + _SMALLEST).log() for value in spread)), dim=1)


def fit_familiarity(latents: Tensor) -> Familiarity:
    """Of training latents (n, 128, h, w): covariance from the first four fifths, the limit from the rest.

    Raises:
        ValueError: fewer than 1000 pictures, of which the limit would be chance.
    """
    if len(latents) < 1000:
        raise ValueError(f"the limit needs at least 1000 pictures, not {len(latents)}")
    seen = len(latents) * 4 // 5
    described = features(latents).double()
    mean, deviation = described[:seen].mean(0), described[:seen].std(0)
    variances, vectors = torch.linalg.eigh(torch.cov(((described[:seen] - mean) / deviation).T))
    # Directions in which the scenes hardly vary would make the distance one of rounding.
    whitening = vectors / deviation[:, None] / variances.clamp(min=_LEAST_VARIANCE).sqrt()
    statistics = Familiarity(mean.float(), whitening.float(), 0.0)
    distances = statistics.distance(latents[seen:])
    return Familiarity(statistics.mean, statistics.whitening, float(distances.quantile(1 - _FALSE_ALARMS)))


def load_familiarity(model: Path) -> Familiarity | None:
    """The statistics beside a model, the base that it names or its autoencoder, a file or folder; None without them.

    Raises:
        ValueError: the file is damaged or another.
    """
    path = (model if model.is_dir() else model.parent) / FILE
    if not path.exists():
        base = named_part(model, "base")
        return None if base is None else load_familiarity(base)
    with open_safetensors(path) as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a mapping
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {"mean": (128,), "whitening": (128, 128), "limit": ()}:
        raise ValueError(f"{path} does not hold statistics of latents; take it away or make it again")
    return Familiarity(tensors["mean"], tensors["whitening"], float(tensors["limit"]))
