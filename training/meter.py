"""What is measured of steps, summed where the steps run and read by the host once per log interval."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from .losses import Errors
from .processes import Processes

#: Equal bands of noise levels by which errors are told apart; the last one ends at t = 1.
BANDS = 4


class Meter:
    """Means over the steps since the last reading; nothing is moved to the host before one."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self._shares: dict[str, Tensor] = {}  # add up over forward passes and processes
        self._by_time: dict[str, Tensor] = {}  # (2, BANDS) sums of errors and numbers of samples
        self._norms: dict[str, Tensor] = {}
        self._never = torch.tensor(torch.inf, dtype=torch.float64, device=processes.device)
        self._not_finite = self._never
        self._steps = 0

    def add(self, terms: Mapping[str, Tensor], errors: Mapping[str, Errors]) -> None:
        """The losses of one forward pass."""
        for name, term in terms.items():
            self._shares[name] = self._shares.get(name, 0) + term.detach().double()
        for name, entry in errors.items():
            self._by_time[name] = self._by_time.get(name, 0) + _by_time(entry)

    def end_step(self, step: int, norms: Mapping[str, Tensor]) -> None:
        """Norms of gradients, the same on every process, at the end of the step with index ``step``."""
        for name, value in norms.items():
            norm = (value.full_tensor() if isinstance(value, DTensor) else value).detach().double()
            self._norms[name] = self._norms.get(name, 0) + norm
            at = torch.where(norm.isfinite(), self._never, step)
            self._not_finite = torch.minimum(self._not_finite, at)
        self._steps += 1

    def not_finite(self) -> int | None:
        """Index of the first step whose gradient was not finite; waits for the device."""
        step = self._not_finite.item()
        return None if step == torch.inf else int(step)

    def read(self) -> dict[str, float]:
        """Mean losses and gradient norms of the steps since the last reading, and mean errors by noise level, as
        ``rgb@0.25-0.50``; one reduction. All processes call it."""
        packed = torch.cat([torch.stack(list(self._shares.values())), *(t.flatten() for t in self._by_time.values())])
        values = torch.cat([self.processes.total(packed), torch.stack(list(self._norms.values()))]).tolist()
        steps = max(self._steps, 1)
        result = {name: value / steps for name, value in zip(self._shares, values, strict=False)}
        norms = zip(self._norms, values[len(values) - len(self._norms) :], strict=True)
        result |= {name: value / steps for name, value in norms}
        for index, name in enumerate(self._by_time):
            first = len(self._shares) + 2 * BANDS * index
            sums, counts = values[first : first + BANDS], values[first + BANDS : first + 2 * BANDS]
            for band in range(BANDS):
                if counts[band]:
                    result[f"{name}@{band / BANDS:.2f}-{(band + 1) / BANDS:.2f}"] = sums[band] / counts[band]
        self._shares, self._by_time, self._norms, self._steps = {}, {}, {}, 0
        return result


def _by_time(errors: Errors) -> Tensor:
    band = (errors.time * BANDS).long().clamp(max=BANDS - 1)
    counted = errors.counted.double()
    sums = torch.zeros(2, BANDS, dtype=torch.float64, device=band.device)
    sums[0].scatter_add_(0, band, errors.error.double() * counted)
    sums[1].scatter_add_(0, band, counted)
    return sums
