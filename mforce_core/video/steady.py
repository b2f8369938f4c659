"""An iterator of frames in, an iterator of steady depth out; memory does not grow with the length of the clip.

Three things make the depth of a clip flicker, and each has its answer here:

- noise: every frame starts from the same (that is up to the function that makes depth of pictures);
- scale: relative depth is divided by the mean of its own frame, which changes when something comes into view. As long
  as the camera rests, a map is brought to the scale of the one before it over the pixels that did not change; when it
  moves, they would not tell its way from a change of scale. At a cut nothing is known: the next shot has its own scale;
- chance: with ``carry``, a frame starts from the depth of the one before it at partial noise. What such a chain gets
  wrong it keeps, so every so many frames a new one starts from noise, and the two are blended where they overlap.

A frame that equals the one before it has its depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .changes import CUT, camera_rests, shot_distance, steadiness
from .flow import FlowWarp
from .scale import blend, scale_between

#: Where more of the picture changed than this, a frame does not start from the depth of the one before it.
_MOST_CHANGED = 0.7
#: Rows and columns of the canvas that show the clip; the rest of it is bars.
Content = tuple[slice, slice]
_ALL: Content = (slice(None), slice(None))
#: The same as an index of pictures and maps.
_Part = tuple[Any, ...]
#: Pictures and maps of a state.
_MAPS = ("picture", "depth", "chain", "rising")


class DepthOf(Protocol):
    """Makes depth of pictures, from one noise for all of them."""

    def __call__(self, pictures: Tensor, start: Tensor | None = None, level: float = 1.0) -> Tensor:
        """Relative depth (B, H, W) on the CPU, NaN where there is none.

        Args:
            pictures: (B, 3, H, W) in [0, 1].
            start: (B, H, W) depth to start from, NaN where noise is to stand, at noise ``level``.
        """
        ...


@dataclass(frozen=True)
class Steadiness:
    """How a clip is kept steady.

    Attributes:
        carry: noise level from which a frame goes on from the depth of the one before; 0: every frame from noise.
        anchor_every: frames after which such a chain starts again from noise.
        overlap: frames over which the old chain gives way to the new one.
        one_scale: bring maps to the scale of the one before, as long as the camera rests.
        flow: move the depth that a frame starts from along the optical flow.
        cut: distance of two frames (`changes.shot_distance`) from which on they are different shots; above 1 none are.
        batch: frames whose depth is made together, where they do not depend on each other.

    Raises:
        ValueError: an impossible value.
    """

    carry: float = 0.0
    anchor_every: int = 24
    overlap: int = 4
    one_scale: bool = True
    flow: bool = False
    cut: float = CUT
    batch: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.carry < 1:
            raise ValueError(f"carry must be a noise level from 0 to below 1, got {self.carry:g}")
        if not 1 <= self.overlap < self.anchor_every:
            raise ValueError(
                f"overlap must be at least 1 and below anchor_every, got {self.overlap} and {self.anchor_every}"
            )
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")
        if self.flow and not self.carry:
            raise ValueError("flow goes with carry: it moves the depth that a frame starts from")
        if not self.cut > 0:
            raise ValueError(f"cut must be above 0, got {self.cut}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


STEADY = Steadiness()


@dataclass(frozen=True)
class SteadyFrame:
    """Depth (H, W) of a frame, NaN where there is none, and whether a shot starts with it."""

    depth: Tensor
    starts_shot: bool


@dataclass
class State:
    """All that goes over from one frame to the next; a clip can be resumed from it.

    Attributes:
        picture, depth: the last frame, and its depth as it was given out.
        chain: the last depth of the chain of frames that start from each other, at its own scale.
        rising: that of the chain that takes its place.
        age: frames since the chain started from noise.
        faded: frames of the overlap that are done.
        factor: what the depth of a frame is multiplied by, to have the scale of its shot.
    """

    picture: Tensor | None = None
    depth: Tensor | None = None
    chain: Tensor | None = None
    rising: Tensor | None = None
    age: int = 0
    faded: int = 0
    factor: float = 1.0

    def tensors(self) -> dict[str, Tensor]:
        """What can be written to a file; `from_tensors` reads it."""
        maps = {name: getattr(self, name) for name in _MAPS}
        counts = torch.tensor([self.age, self.faded, self.factor], dtype=torch.float64)
        return {name: one.contiguous() for name, one in maps.items() if one is not None} | {"counts": counts}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> State:
        """The state of `tensors`."""
        age, faded, factor = tensors["counts"].tolist()
        maps = {name: tensors[name] for name in _MAPS if name in tensors}
        return cls(**maps, age=int(age), faded=int(faded), factor=factor)


class Steadier:
    """Takes the frames of a clip, some at a time and in their order.

    Args:
        depth_of: makes depth of pictures.
        how: what is done against flicker.
        state: of a clip that is resumed.
    """

    def __init__(self, depth_of: DepthOf, how: Steadiness = STEADY, state: State | None = None) -> None:
        self.depth_of, self.how = depth_of, how
        self.state = State() if state is None else state
        self._warp = FlowWarp() if how.flow else None

    def __call__(self, pictures: Tensor, content: Content = _ALL) -> list[SteadyFrame]:
        """Depth of the next frames (B, 3, H, W) in [0, 1] on the CPU.

        Args:
            content: the part in which frames are compared: bars are the same in every frame, whatever it shows.

        Raises:
            ValueError: they have another size than those before them.
        """
        last = self.state.picture
        if last is not None and last.shape != pictures.shape[1:]:
            size, others = (f"{shape[-1]}x{shape[-2]}" for shape in (pictures.shape, last.shape))
            raise ValueError(f"a frame is {size} and those before it {others}")
        fresh: Iterator[Tensor] = iter(())
        if not self.how.carry:
            # What equals the frame before it needs no depth of its own.
            before = [last, *pictures[:-1]]
            new = [one for one, other in zip(pictures, before, strict=True) if not _equal(one, other)]
            fresh = iter(self.depth_of(torch.stack(new))) if new else fresh
        return [self._next(picture, fresh, (..., *content)) for picture in pictures]

    def _next(self, picture: Tensor, fresh: Iterator[Tensor], content: _Part) -> SteadyFrame:
        state = self.state
        if _equal(picture, state.picture):
            assert state.depth is not None
            return SteadyFrame(state.depth, False)
        weight, seen = None, picture[content]
        if state.picture is not None and shot_distance(state.picture[content], seen) < self.how.cut:
            weight = steadiness(state.picture[content], seen)
        if self.how.carry:
            depth = self._carried(picture, weight, content)
        else:
            depth = next(fresh)
        if weight is None:
            state.factor = 1.0
        elif self.how.one_scale and camera_rests(seen, weight):
            assert state.depth is not None
            state.factor = scale_between(depth[content], state.depth[content], weight) or state.factor
        depth = state.factor * depth
        state.picture, state.depth = picture, depth
        return SteadyFrame(depth, weight is None)

    def _carried(self, picture: Tensor, weight: Tensor | None, content: _Part) -> Tensor:
        """Depth that goes on from that of the frame before, where so much of the picture is the same."""
        state, how = self.state, self.how
        if weight is not None and self._warp is not None:
            weight = self._follow(self._warp, picture, content)
        if weight is None or state.chain is None or float((weight == 0).float().mean()) > _MOST_CHANGED:
            state.chain, state.rising, state.age, state.faded = self.depth_of(picture[None])[0], None, 0, 0
            return state.chain
        state.chain = self._going_on(picture, state.chain)
        state.age += 1
        if state.rising is not None:
            state.rising = self._going_on(picture, state.rising)
        elif state.age >= how.anchor_every:
            state.rising = self.depth_of(picture[None])[0]
        if state.rising is None:
            return state.chain
        state.faded += 1
        # In scale as in shape: a step from the one scale to the other at the end would be seen.
        depth = blend(state.chain, state.rising, state.faded / (how.overlap + 1))
        if state.faded == how.overlap:
            state.chain, state.rising, state.age, state.faded = state.rising, None, how.overlap - 1, 0
        return depth

    def _going_on(self, picture: Tensor, depth: Tensor) -> Tensor:
        return self.depth_of(picture[None], depth[None], self.how.carry)[0]

    def _follow(self, warp: FlowWarp, picture: Tensor, content: _Part) -> Tensor:
        """Move the chains along the flow to the next picture; how far each of its pixels is known from the last."""
        state = self.state
        assert state.picture is not None
        names = [name for name in ("chain", "rising") if getattr(state, name) is not None]
        known, *moved = warp(state.picture, picture, state.picture, *(getattr(state, name) for name in names))
        for name, depth in zip(names, moved, strict=True):
            setattr(state, name, torch.where(depth.isnan(), getattr(state, name), depth))
        return steadiness(known.where(known.isfinite(), -1.0)[content], picture[content])


def steady_depth(frames: Iterable[Tensor], depth_of: DepthOf, how: Steadiness = STEADY) -> Iterator[SteadyFrame]:
    """Steady depth of a clip, frame by frame.

    Args:
        frames: pictures (3, H, W) in [0, 1], all of one size; no more than ``how.batch`` are held.
        depth_of: makes depth of pictures.
        how: what is done against flicker.

    Raises:
        ValueError: a frame of another size.
    """
    steadier = Steadier(depth_of, how)
    for batch in batches(frames, how.batch):
        yield from steadier(torch.stack(batch))


def batches(frames: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """The frames in lists of ``size``, the last may be shorter."""
    held: list[Any] = []
    for frame in frames:
        held.append(frame)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held


def _equal(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and torch.equal(one, other)
