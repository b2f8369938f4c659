"""What a choice of back end depends on."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Call(NamedTuple):
    """One call of attention, without its values."""

    device: torch.device
    dtype: torch.dtype
    batch: int
    heads: int
    query_length: int
    key_length: int
    features: int
    backward: bool

    @classmethod
    def of(cls, q: Tensor, k: Tensor, v: Tensor) -> "Call":
        batch, query_length, heads, features = q.shape
        gradient = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        return cls(q.device, q.dtype, batch, heads, query_length, k.shape[1], features, gradient)

    @property
    def kind(self) -> str:
        """Everything but the sizes of batch and sequences."""
        kind = f"{str(self.dtype).removeprefix('torch.')} heads of {self.features}"
        return kind + " with gradient" * self.backward

    @property
    def bucket(self) -> str:
        """Calls that share a choice: of one kind, batch times heads and lengths rounded up to powers of two."""
        sizes = (_power_of_two(n) for n in (self.batch * self.heads, self.query_length, self.key_length))
        return f"{self.kind}: {' x '.join(map(str, sizes))}"

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gaussian inputs of these sizes; the process's random numbers are left alone."""
        generator = torch.Generator(self.device).manual_seed(0)

        def tokens(length: int) -> Tensor:
            shape = (self.batch, length, self.heads, self.features)
            values = torch.randn(shape, generator=generator, device=self.device, dtype=torch.float32)
            return values.to(self.dtype).requires_grad_(self.backward)

        return tokens(self.query_length), tokens(self.key_length), tokens(self.key_length)


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


def bucket_size(bucket: str) -> int:
    """Products of queries and keys in a bucket."""
    return math.prod(map(int, bucket.rpartition(": ")[2].split(" x ")))
