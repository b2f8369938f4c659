"""What to keep of the differences of many matrices, within a number of values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

_HALVINGS = 100
#: Squared singular values that are so much smaller than the largest are rounding of the decomposition.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Allocation:
    """What is kept of a matrix's difference: ``rank`` components, or all of it where ``whole``.

    ``lost`` is the share of the squared difference that is not kept, in the metric in which it was chosen.
    """

    shape: tuple[int, int]
    rank: int
    whole: bool
    lost: float

    @property
    def values(self) -> int:
        rows, columns = self.shape
        return rows * columns if self.whole else self.rank * (rows + columns)


def allocate(spectra: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, int]], most: int) -> dict[str, Allocation]:
    """What to keep of every matrix so that the least squared difference is lost within ``most`` values.

    Args:
        spectra: singular values in descending order, float64.
    """

    def at(price: float) -> dict[str, Allocation]:
        return {name: _at_price(values, shapes[name], price) for name, values in spectra.items()}

    def count(price: float) -> int:
        return sum(part.values for part in at(price).values())

    high = max(float(values[0]) ** 2 for values in spectra.values()) + 1e-30
    low = high * _ROUNDING
    if count(low) <= most:
        return at(low)
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5  # prices span many orders of magnitude
        low, high = (middle, high) if count(middle) > most else (low, middle)
    return at(high)


def _at_price(values: Tensor, shape: tuple[int, int], price: float) -> Allocation:
    rows, columns = shape
    squares = values.square()
    total = float(squares.sum())
    rank = int((squares > price * (rows + columns)).sum())
    lost = float(squares[rank:].sum())
    whole = total > 0 and price * rows * columns <= lost + price * rank * (rows + columns)
    return Allocation(shape, 0 if whole else rank, whole, 0.0 if whole or total == 0 else lost / total)
