"""Random inputs of an operation, to try and to time its back ends with."""

import torch
from torch import Tensor

from .registry import Call


class Draw:
    """Gaussian tensors of a call's dtype, on its device; the process's random numbers are left alone."""

    def __init__(self, call: Call) -> None:
        self.call, self.generator = call, torch.Generator(call.device).manual_seed(0)

    def __call__(self, *shape: int) -> Tensor:
        values = torch.randn(shape, generator=self.generator, device=self.call.device, dtype=torch.float32)
        return values.to(self.call.dtype).requires_grad_(self.call.gradient)
