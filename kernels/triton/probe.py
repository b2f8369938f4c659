"""The smallest Triton kernel, to find out whether kernels compile and launch on a device at all."""

import torch
import triton
import triton.language as tl


@triton.jit
def _double(x, length, block: tl.constexpr):
    offsets = tl.arange(0, block)
    inside = offsets < length
    tl.store(x + offsets, 2 * tl.load(x + offsets, mask=inside), mask=inside)


def launch(device: torch.device) -> None:
    """Run the kernel on ``device``.

    Raises:
        RuntimeError: it ran and gave a wrong answer; Triton raises errors of its own where it does not run.
    """
    values = torch.ones(16, device=device)
    with torch.cuda.device_of(values):  # Triton launches on the current GPU, which may be another
        _double[(1,)](values, 16, block=16)
    if values.sum().item() != 32:
        raise RuntimeError("it gave a wrong answer")
