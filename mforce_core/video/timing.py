"""When the pictures of a clip are shown: clips of phones and recordings of screens have no steady rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

#: Browsers show a picture of an animation that is to stay this many seconds or fewer for a usual while.
_TOO_SHORT, _SHOWN = Fraction(1, 100), Fraction(1, 10)
#: The finest unit that is kept, and MPEG's, which stands in for finer ones: an MP4 file counts in 32 bits.
_FINEST, _USUAL = Fraction(1, 1_000_000), Fraction(1, 90_000)


@dataclass(frozen=True)
class TimeStamps:
    """When each picture of a clip is shown, and when the last one ends.

    Attributes:
        ticks: one more than pictures, rising, in units from the beginning of the clip.
        unit: seconds.
    """

    ticks: Sequence[int]
    unit: Fraction

    def seconds(self, number: int) -> float:
        """When a picture is shown, counted from 0; that after the last is the end."""
        return float(self.ticks[number] * self.unit)


def uneven_times(ticks: Sequence[int], unit: Fraction, rate: Fraction, begins: float) -> TimeStamps | None:
    """The time stamps of pictures that do not come at a rate, None for those that do.

    A file rounds its time stamps to its unit, so that one of them is no sign of an uneven pace. Time stamps that do not
    rise are a fault of the file and taken for none.

    Args:
        ticks: when pictures are shown, and when the last one ends, in units of the file.
        unit: of the file, in seconds.
        rate: frames a second that the file names.
        begins: seconds in the time of the file that are 0 in the result.
    """
    step = 1 / (rate * unit)
    even = all(abs(tick - ticks[0] - number * step) <= 1 for number, tick in enumerate(ticks[:-1]))
    if even or any(later <= tick for tick, later in pairwise(ticks)):
        return None
    zero = min(round(begins / unit), ticks[0])
    kept = unit if unit >= _FINEST else _USUAL
    return TimeStamps([round((tick - zero) * (unit / kept)) for tick in ticks], kept)


def longer_in_browsers(lasts: int, unit: Fraction) -> int:
    """For how many units longer than it says a browser shows a picture of an animation."""
    return round(_SHOWN / unit) - lasts if lasts * unit <= _TOO_SHORT else 0
