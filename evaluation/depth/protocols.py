"""Named ways to score a prediction. Every report prints its own in words, since numbers differ by protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.functional import interpolate

from .alignment import AFFINE_ALIGNMENTS, ALIGNMENTS, Kind, Limits, fit, formula
from .boundaries import depth_pro_f1, moge_f1
from .example import Example
from .metrics import MOGE_EPSILON, pixel_errors
from .normals import normal_errors
from .pair import Pair

#: Shapes of a prediction and its picture may differ by this much before they count as two pictures.
_SAME_SHAPE = 0.02


@dataclass(frozen=True)
class Protocol:
    """What is measured after which alignments.

    Attributes:
        name: whose it is.
        alignments: of `ALIGNMENTS`; the first is the one of pictures, of boundaries and of normals.
        epsilon: added to the truth that AbsRel divides by.
        negative_hits: count negative depth as a hit of the deltas.
        normals: measure the normals that depth implies, too, where the camera is known.
    """

    name: str
    alignments: tuple[str, ...]
    epsilon: float = 0.0
    negative_hits: bool = False
    normals: bool = False

    def describe(self, limits: Limits) -> str:
        """The protocol in words, for a data set of these limits."""
        fits = "; ".join(f"{name}: {formula(name, limits)}" for name in self.alignments)
        divisor = "g" if self.epsilon == 0 else f"(g + {self.epsilon:g})"
        return (
            f"protocol {self.name}. {fits}. AbsRel = mean |p - g| / {divisor}, delta_k = share of max(p/g, g/p) < "
            f"1.25^k{' (depth below 0 too)' if self.negative_hits else ''}, over the pixels that count; then means "
            "over pictures"
        )


PROTOCOLS = {
    "moge": Protocol("moge", ("affine-depth", "scale", "affine-disparity"), MOGE_EPSILON, negative_hits=True),
    "marigold": Protocol("marigold", ("least-square",)),
}
#: The alignment of disparity in each of them.
_OF_DISPARITY = {"moge": "affine-disparity", "marigold": "least-square-disparity"}


def protocol(
    name: str, alignments: tuple[str, ...] = (), *, kind: Kind = "depth", affine: bool = False, normals: bool = False
) -> Protocol:
    """A protocol by name.

    Args:
        name: of `PROTOCOLS`.
        alignments: instead of the protocol's own; without them, those of its own that the prediction allows.
        kind: of the prediction.
        affine: depth that has neither scale nor shift.
        normals: measure the normals that depth implies, too.

    Raises:
        ValueError: an unknown name, or an alignment that the prediction does not allow.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"There is no protocol {name}: there are {', '.join(PROTOCOLS)}.")
    for alignment in alignments:
        if alignment not in ALIGNMENTS:
            raise ValueError(f"There is no alignment {alignment}: there are {', '.join(ALIGNMENTS)}.")
        if kind == "disparity" and ALIGNMENTS[alignment].wants == "depth":
            fits = ", ".join(known for known in ALIGNMENTS if ALIGNMENTS[known].wants == "disparity")
            raise ValueError(f"The alignment {alignment} is for depth: disparity takes {fits}.")
        if affine and alignment not in AFFINE_ALIGNMENTS:
            raise ValueError(
                f"The prediction has neither scale nor shift, which takes {' or '.join(AFFINE_ALIGNMENTS)}, not "
                f"{alignment}. An ensemble of this project's models keeps the scale with --ensemble-method median."
            )
    found = PROTOCOLS[name]
    if not alignments:
        alignments = (_OF_DISPARITY[name],) if kind == "disparity" else found.alignments
    if affine:
        alignments = tuple(alignment for alignment in alignments if alignment in AFFINE_ALIGNMENTS)
    return replace(found, alignments=alignments, normals=normals)


def score(
    example: Example, prediction: np.ndarray, kind: Kind, wanted: Protocol, limits: Limits, sharp: bool
) -> dict[str, float]:
    """Every measure of one picture.

    Args:
        example: picture and truth.
        prediction: (h, w), NaN where there is none; brought to the picture's size.
        kind: depth or disparity.
        wanted: the protocol.
        limits: of the data set.
        sharp: score boundaries, too.

    Returns:
        ``ALIGNMENT.MEASURE`` -> value, and ``pixels`` and the share of them that is ``missing`` in the prediction.

    Raises:
        ValueError: a prediction of another shape, or nothing in it to align.
    """
    given = Pair(to_size(prediction, example.depth.shape), example.depth, example.mask)
    pixels = len(given.predicted)
    found: dict[str, float] = {"pixels": float(pixels), "missing": 1 - (pixels - given.missing) / pixels}
    fits = {name: fit(name, given, limits, kind) for name in wanted.alignments}
    for name, aligned in fits.items():
        errors = pixel_errors(
            given.predicted, given.measured, wanted.epsilon, negative_hits=wanted.negative_hits, aligned=aligned
        )
        found |= {f"{name}.{measure}": value for measure, value in errors.items()}
    camera = example.intrinsics if wanted.normals else None
    if not sharp and camera is None:
        return found
    first = wanted.alignments[0]
    whole, truth, mask = fits[first](given.prediction), example.depth.astype(np.float64), example.mask
    if sharp:
        known = mask & np.isfinite(whole)
        safe = np.where(known, whole, 1.0)
        found |= {f"boundary.moge_f1_r{radius}": moge_f1(safe, truth, known, radius) for radius in (1, 2, 3)}
        found["boundary.depth_pro_f1"] = depth_pro_f1(safe, truth, known)
    if camera is not None:
        errors = normal_errors(whole, truth, mask, camera)
        found |= {f"{first}.{measure}": value for measure, value in errors.items()}
    return found


def to_size(prediction: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A prediction (h, w) at a picture's size: bilinear, or nearest where it has holes.

    Raises:
        ValueError: its proportions are not the picture's.
    """
    if prediction.shape == size:
        return prediction
    height, width = size
    ratio = prediction.shape[1] * height / (prediction.shape[0] * width)
    if abs(ratio - 1) > _SAME_SHAPE:
        shapes = "{1}x{0}".format(*prediction.shape), f"{width}x{height}"
        raise ValueError(f"the prediction is {shapes[0]} and the picture {shapes[1]}: another crop?")
    map_ = torch.from_numpy(np.ascontiguousarray(prediction, dtype=np.float32))[None, None]
    whole = bool(torch.isfinite(map_).all())
    resized = interpolate(map_, size, mode="bilinear") if whole else interpolate(map_, size, mode="nearest-exact")
    return resized[0, 0].numpy()
