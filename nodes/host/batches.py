"""Pictures of a batch, taken out or repeated, with everything that a LATENT notes about each of them.

Relies on: the entries ``samples``, ``noise_mask`` (one mask, or one per picture) and ``batch_index`` of a LATENT.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.utils
from torch import Tensor

from .joint_latent import PER_SAMPLE, REPEATS, JointSamples, Latent


def take_pictures(latent: Latent, start: int, length: int) -> Latent:
    """``length`` pictures of a LATENT from picture ``start`` on, or as many as there are; -1 is the last picture.

    Raises:
        ValueError: there is no picture ``start``.
    """
    batch = latent["samples"].shape[0]
    first = start + batch if start < 0 else start
    if not 0 <= first < batch:
        raise ValueError(f"there is no picture {start} in a batch of {batch}: set start from {-batch} to {batch - 1}.")
    places = list(range(batch))[first : first + length]
    known = latent.get("batch_index", range(batch))
    return _pick(latent, places) | {"batch_index": [known[place] for place in places]}


def repeat_pictures(latent: Latent, amount: int) -> Latent:
    """The whole batch of a LATENT ``amount`` times, each picture with its turn as ``repeat_index``.

    Where places in a batch are noted, repeats get new ones.
    """
    batch = latent["samples"].shape[0]
    repeated = _pick(latent, list(range(batch)) * amount)
    if "batch_index" in latent:
        repeated["batch_index"] = _counted_on(latent["batch_index"], amount)
    return repeated | {REPEATS: _counted_on(latent.get(REPEATS, [0] * batch), amount)}


def _pick(latent: Latent, places: list[int]) -> Latent:
    """The pictures at these places of the batch, with their masks and what is known about their depth."""
    samples = latent["samples"]
    picked = latent | {"samples": _each_stream(samples, lambda stream: stream[places])}

    def of_those(value: Tensor) -> Tensor:
        # One row stands for the whole batch; fewer rows than pictures repeat, as core's samplers repeat masks.
        return value if len(value) == 1 else comfy.utils.repeat_to_batch_size(value, samples.shape[0])[places]

    if "noise_mask" in latent:
        picked["noise_mask"] = _each_stream(latent["noise_mask"], of_those)
    if REPEATS in latent:
        picked[REPEATS] = [latent[REPEATS][place] for place in places]
    return picked | {name: of_those(latent[name]) for name in PER_SAMPLE & latent.keys()}


def _counted_on(places: list[int], amount: int) -> list[int]:
    """Places ``amount`` times, as core's RepeatLatentBatch counts them on."""
    offset = max(places) - min(places) + 1
    return [place + turn * offset for turn in range(amount) for place in places]


def _each_stream(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A tensor changed, or each stream of a nested one."""
    return JointSamples(map(change, value.unbind())) if value.is_nested else change(value)
