"""Depth of clips inside ComfyUI: their frames one after the other, and the model that makes depth of them.

Relies on: ``comfy_api.latest`` (Input.Video, InputImpl.VideoFromFile with its ``get_stream_source`` and
``get_active_trim_window``), ``comfy.utils.ProgressBar`` and
``comfy.model_management.throw_exception_if_processing_interrupted``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import InputImpl, Types
from einops import rearrange
from torch import Tensor

from ...mforce_core.depth.codec import mean_depth
from ...mforce_core.picture.color import to_bytes
from ...mforce_core.placement import Placement
from ...mforce_core.release import DEPTH_CHANNELS, PATCH_SIZE
from ...mforce_core.video.animation import AnimationReader
from ...mforce_core.video.clips import open_clip
from ...mforce_core.video.going_on import path_from
from ...mforce_core.video.reader import VideoReader
from ...mforce_core.video.steady import Steadier, Steadiness, batches
from ...mforce_core.video.timing import TimeStamps
from .core_sampler import IMAGE_TO_DEPTH, Settings, read_task, run
from .depth_latent import decode_stream, encode_stream
from .image_fit import fit_image, place
from .images import to_rgb
from .joint_latent import Latent, empty_stream, joint
from .joint_model import check_joint
from .nano_parts import warn_of_unfamiliar
from .notices import notice
from .path_plan import PathPlan
from .picture_latent import encode_pictures
from .progress import depth_on_node
from .starting_noise import draw_noise, noise_and_depth

#: Frames a second of frames that come without.
USUAL_RATE = Fraction(24)
#: Largest denominator of the frames a second of pictures, whose rate was a float on its way: 30000 / 1001 has it.
_FINEST_RATE = 1001
ONE_FRAME = "a clip needs two frames or more; for one picture use MF Image to Depth Latent."
NO_FRAME = "the clip has no frame."


class Clip:
    """The frames of an IMAGE batch or of a VIDEO; that of a file is decoded frame by frame, whenever it is asked for.

    Attributes:
        count: how many frames there are; of a VIDEO as its file says, 0 where it does not.
        rate: frames a second.
        sound_start: seconds of the sound that come before the first frame.
        notes: sentences on pictures that are not read as a file stores them.
        breaks_off: a sentence for a file that ends too early, known when its frames have been read.
        times: when frames are shown that do not come at the rate; known after `pictures` has gone through them once.
    """

    notes: tuple[str, ...] = ()
    breaks_off: str | None = None

    def __init__(self, frames: Any) -> None:
        self._images: Tensor | None = frames if isinstance(frames, Tensor) else None
        self._source: Path | BytesIO | None = None
        self._audio: Any = None
        self.times: TimeStamps | None = None
        self.rate, self.sound_start = USUAL_RATE, 0.0
        if isinstance(frames, InputImpl.VideoFromFile):
            source = frames.get_stream_source()
            self._source = Path(source) if isinstance(source, str) else source
            self._start, self._duration = frames.get_active_trim_window()
            with self._video() as video:
                self.count, self.rate, self.sound_start = video.count, video.rate, video.begins
        elif self._images is None:
            parts = frames.get_components()
            self._images, self.rate = parts.images, Fraction(parts.frame_rate).limit_denominator(_FINEST_RATE)
            self._audio = parts.audio
        if self._images is not None:
            self.count = len(self._images)

    def __iter__(self) -> Iterator[Tensor]:
        """IMAGEs (1, H, W, C) of one frame."""
        if self._images is not None:
            yield from self._images.split(1)
            return
        for picture in self.pictures():
            yield torch.from_numpy(picture)[None].float() / 255

    def pictures(self) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8."""
        if self._images is None:
            with self._video() as video:
                yield from video
                self.notes, self.breaks_off = video.notes, video.breaks_off
                self.times = video.times
            return
        for image in self._images.split(1):
            yield to_bytes(to_rgb(image)[0].cpu()).numpy()

    @property
    def remarks(self) -> list[str]:
        """Sentences on how the frames were read, all of them once they have been."""
        return [*self.notes, *filter(None, [self.breaks_off])]

    def sound(self) -> Path | BytesIO | None:
        """A file or its content, with the sound, which can be read beside the frames."""
        if self._audio is not None:
            # Core encodes sound beside pictures alone: small black ones, as long as the clip.
            black = torch.zeros(1, PATCH_SIZE, PATCH_SIZE, 3).expand(self.count, -1, -1, -1)
            parts = Types.VideoComponents(images=black, audio=self._audio, frame_rate=self.rate)
            return InputImpl.VideoFromComponents(parts).get_stream_source()
        return BytesIO(self._source.getvalue()) if isinstance(self._source, BytesIO) else self._source

    def _video(self) -> VideoReader | AnimationReader:
        assert self._source is not None
        return open_clip(self._source, start=self._start, duration=self._duration)


class ClipDepth:
    """Makes depth of pictures with a model of ComfyUI, all from one noise, see ``mforce_core.video.steady.DepthOf``.

    ``node`` is named where the VAE does not know such pictures.
    """

    def __init__(self, node: str, model: Any, positive: Any, vae: Any, steps: int, seed: int) -> None:
        check_joint(model)
        self.node = node
        self.model, self.positive, self.vae, self.steps, self.seed = model, positive, vae, steps, seed
        self._warned = False

    def __call__(self, pictures: Tensor, start: Tensor | None = None, level: float = 1.0) -> Tensor:
        """Depth maps (B, H, W) of pictures (B, 3, H, W) in [0, 1]."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        rgb = encode_pictures(self.vae, rearrange(pictures, "b c h w -> b h w c"))
        count, _, height, width = rgb.shape
        if not self._warned:
            warn_of_unfamiliar(self.node, self.vae, rgb)
            self._warned = True
        seeds = [self.seed] * count
        if start is None or not start.isfinite().flatten(1).any(1).all():
            level, depth = 1.0, empty_stream(count, DEPTH_CHANNELS, height, width)
            noise = draw_noise(rgb, depth, seeds)
        else:
            noise, depth = noise_and_depth(rgb, start, seeds)
        schedule = self.model.model.diffusion_model.schedule
        plan = PathPlan.of(*path_from(level, self.steps, schedule), "euler", schedule)
        task = read_task(joint(rgb, depth.to(rgb), freeze_rgb=True), IMAGE_TO_DEPTH)
        _, stream = run(self.model, self.positive, self.positive, task, noise, Settings(plan=plan), seeds)
        maps, valid = decode_stream(stream.cpu(), {})
        return maps.where(valid, torch.nan)


@dataclass(frozen=True)
class ClipResult:
    """Of T frames at the working size: pictures (T, H, W, 3), depth (T, H, W), valid pixels, how they were fitted."""

    pictures: Tensor
    depth: Tensor
    valid: Tensor
    placement: Placement

    def latent(self) -> Latent:
        """The depth stream with all that Depth Detokenize and MF Restore Size need to know."""
        return {
            "samples": encode_stream(self.depth, self.valid),
            "depth_valid": self.valid,
            "depth_scale": mean_depth(self.depth, self.valid).float(),
            "placement": self.placement,
        }


def depth_of_clip(clip: Clip, depth_of: ClipDepth, how: Steadiness, width: int, height: int, fit: str) -> ClipResult:
    """Steady depth of a clip, with ComfyUI's progress bar and the depth made last, until it is interrupted.

    Raises:
        ValueError: a single frame, frames of changing sizes, or no depth.
    """
    bar = comfy.utils.ProgressBar(max(1, clip.count))
    steadier, placement = Steadier(depth_of, how), None
    pictures: list[Tensor] = []
    maps: list[Tensor] = []
    for batch in batches(clip, how.batch):
        placement = placement or place(batch[0], width, height, fit)
        fitted = torch.cat([fit_image(frame, placement) for frame in batch]).cpu()
        if clip.count == 1 or (not pictures and how.batch > 1 and len(fitted) == 1):
            raise ValueError(ONE_FRAME)
        found = steadier(rearrange(fitted, "b h w c -> b c h w"), placement.content)
        pictures.append(fitted)
        maps += [frame.depth for frame in found]
        bar.update_absolute(len(maps), max(len(maps), clip.count), depth_on_node(maps[-1]))
    if placement is None:
        raise ValueError(NO_FRAME)
    for remark in clip.remarks:
        notice(remark)
    depth = torch.stack(maps)
    valid = depth.isfinite() & placement.inside(len(depth))
    if not valid.flatten(1).any(1).all():
        raise ValueError("a frame came out without depth: the model does not fit width and height.")
    return ClipResult(torch.cat(pictures), depth.where(valid, 0.0), valid, placement)
