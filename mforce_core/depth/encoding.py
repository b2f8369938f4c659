"""What the numbers in a depth file mean, and how the file says so."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

#: Name of the entry in the text of a PNG or the header of an EXR.
KEY = "mforce_depth"


@dataclass(frozen=True)
class Encoding:
    """What a file's numbers mean: number * ``scale`` + ``offset`` is depth or, if ``disparity``, 1 / depth."""

    disparity: bool = False
    scale: float = 1.0
    offset: float = 0.0

    def depth(self, numbers: np.ndarray) -> np.ndarray:
        """Depth (H, W) float32 of a file's numbers; NaN stays NaN."""
        if self.scale == 1.0 and self.offset == 0.0:
            values = numbers
        else:
            values = numbers.astype(np.float64) * self.scale + self.offset
        with np.errstate(over="ignore", divide="ignore"):
            if self.disparity:
                values = 1.0 / values
            return values.astype(np.float32)

    def to_text(self) -> str:
        """The entry of a file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: object, path: Path) -> Encoding:
        """The meaning that the entry of ``path`` gives.

        Raises:
            ValueError: the entry is damaged.
        """
        try:
            found = json.loads(str(text))
            encoding = cls(bool(found["disparity"]), float(found["scale"]), float(found["offset"]))
            if encoding.scale == 0 or not math.isfinite(encoding.scale) or not math.isfinite(encoding.offset):
                raise ValueError("no finite scale and offset")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise ValueError(
                f"{path} has a damaged {KEY} entry ({str(text)[:80]!r}): remove it or save again."
            ) from None
        return encoding


#: Depth as it is.
PLAIN = Encoding()
