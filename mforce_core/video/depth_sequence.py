"""The depth of a clip as numbered files, written frame by frame, and as the pictures of a video.

Depth is made first: only then is the range known that a video shows it in. Both ways go through the clip once, so that
memory does not grow with its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ..depth.colormaps import COLORMAPS, colorize
from ..depth.disparity import disparity_of
from ..depth.files import LEVELS, read_depth, write_16_bit, write_exr
from ..depth.images import FAR_LIMIT
from ..depth.range import percentile_range, stretch
from ..depth.resampling import enlarge_depth
from ..placement import Placement, Size, place
from ..whole_file import whole_file
from .steady import Steadier, SteadyFrame, batches

#: Kinds of depth files.
FORMS = (PNG, EXR) = ("png", "exr")
#: Colors of a video, near is bright or warm.
GRAY = "gray"
COLORS = (GRAY, *COLORMAPS)
#: What a video shows.
LAYOUTS = (DEPTH_ALONE, SIDE_BY_SIDE) = ("depth", "side by side")
#: Percent of a frame's pixels beyond either end of its range, and of the frames whose range counts for the clip.
_CLIPPED, _FRAMES_CLIPPED = 1.0, 5.0


@dataclass(frozen=True)
class Canvas:
    """How frames come to the model, and in which size their depth is written.

    Attributes:
        size: (height, width) that the model works at.
        fit: one of `mforce_core.placement.FITS`.
        original_size: depth in the size of the frames, or in the model's without bars.
    """

    size: Size
    fit: str
    original_size: bool

    def placement(self, frame: np.ndarray) -> Placement:
        """How a frame (H, W, 3) comes to the canvas."""
        return place((frame.shape[0], frame.shape[1]), self.size, self.fit)


@dataclass
class Progress:
    """How much of a clip is written, and what is known of it.

    Attributes:
        done: frames that are written.
        step: depth of one level of the PNG files, the same for the whole clip.
        cuts: numbers of the frames that start a shot, from 1.
        ranges: of every frame, its lowest and highest 1 / depth but for stray pixels.
    """

    done: int = 0
    step: float | None = None
    cuts: list[int] = field(default_factory=list)
    ranges: list[tuple[float, float]] = field(default_factory=list)

    @property
    def range(self) -> tuple[float, float]:
        """1 / depth at the far and at the near end of a video, but for what a few frames alone have."""
        low, high = np.array(self.ranges).T
        return float(np.percentile(low, _FRAMES_CLIPPED)), float(np.percentile(high, 100 - _FRAMES_CLIPPED))


@dataclass
class DepthSequence:
    """Depth files of a clip, ``depth.000001.png`` and so on.

    Attributes:
        folder: that holds them, which is there.
        form: of `FORMS`.
        canvas: of the frames.
        kept: the files are a result. Else they stay small, in the model's size, and are enlarged when they are shown.
        progress: what is written already.
    """

    folder: Path
    form: str
    canvas: Canvas
    kept: bool = True
    progress: Progress = field(default_factory=Progress)

    def path(self, number: int) -> Path:
        """The file of a frame, counted from 1."""
        return self.folder / f"depth.{number:06d}.{self.form}"

    def write(self, frames: Iterable[np.ndarray], steadier: Steadier) -> Iterator[Tensor]:
        """Make and write the depth of the next frames (H, W, 3) uint8.

        Yields:
            The depth (h, w) on the canvas that was made last, when all files of a batch are written.

        Raises:
            ValueError: a frame of another size, or one whose depth cannot be made.
        """
        for batch in batches(map(self._placed, frames), steadier.how.batch):
            placement = batch[0][1]
            made = steadier(torch.stack([picture for picture, _ in batch]), placement.content)
            for frame in made:
                self.add(frame, placement)
            yield made[-1].depth

    def add(self, frame: SteadyFrame, placement: Placement) -> None:
        """Write the file of the next frame.

        Raises:
            ValueError: it has no depth.
        """
        progress, depth = self.progress, placement.without_bars(frame.depth[None])
        known = depth.isfinite()
        if not known.any():
            raise ValueError(f"Frame {progress.done + 1} came out without depth: the model does not fit this size.")
        if progress.step is None:
            progress.step = FAR_LIMIT * float(depth[known].median()) / LEVELS
        low, high = percentile_range(disparity_of(depth, known), known, _CLIPPED)[0].tolist()
        whole = placement.restore_depth(frame.depth[None]) if self.kept and self.canvas.original_size else depth
        with whole_file(self.path(progress.done + 1)) as partial:
            if self.form == PNG:
                write_16_bit(partial, whole[0].numpy(), step=progress.step)
            else:
                write_exr(partial, whole[0].numpy())
        progress.done += 1
        progress.ranges.append((low, high))
        if frame.starts_shot:
            progress.cuts.append(progress.done)

    def shown(self, frames: Iterable[np.ndarray], colors: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pictures of the written depth, in one range for the clip, each with its frame in the same size.

        Args:
            frames: of the clip, from its beginning.
            colors: of `COLORS`; black where there is no depth.

        Yields:
            Frame and depth, both (H, W, 3) uint8.
        """
        limits = torch.tensor([self.progress.range])
        for number, frame in zip(range(1, self.progress.done + 1), frames, strict=False):
            depth = torch.from_numpy(read_depth(self.path(number)).depth)[None]
            placement = self.canvas.placement(frame)
            if not self.canvas.original_size:
                rows, columns = placement.content
                frame = placement.place_photo(Image.fromarray(frame))[rows, columns]
            elif not self.kept:
                depth = placement.uncut(enlarge_depth(depth, placement.crop[2:]), torch.nan)
            yield frame, _picture(depth, limits, colors)

    def _placed(self, frame: np.ndarray) -> tuple[Tensor, Placement]:
        """A frame on the model's canvas, (3, H, W) in [0, 1], and how it came there."""
        placement = self.canvas.placement(frame)
        canvas = torch.from_numpy(placement.place_photo(Image.fromarray(frame)))
        return rearrange(canvas, "h w c -> c h w").float() / 255, placement


def laid_out(layout: str, frame: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """A picture of a video from a frame and its depth, both (H, W, 3); ``layout`` is one of `LAYOUTS`."""
    return np.concatenate((frame, depth), axis=1) if layout == SIDE_BY_SIDE else depth


def _picture(depth: Tensor, limits: Tensor, colors: str) -> np.ndarray:
    """A map (1, H, W) as a picture (H, W, 3) uint8."""
    known = depth.isfinite()
    near = stretch(disparity_of(depth, known), known, limits)[0].numpy()
    picture = (
        np.repeat(near[..., None], 3, -1) if colors == GRAY else colorize(near, colors) * known[0, ..., None].numpy()
    )
    return (255 * picture).round().astype(np.uint8)
