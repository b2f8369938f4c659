"""The depth of a VIDEO as another VIDEO: frame by frame, with files where other nodes keep whole clips in memory.

Relies on: ``folder_paths.get_temp_directory``, which ComfyUI empties when it starts, ``comfy.utils.ProgressBar`` and
``comfy.model_management.throw_exception_if_processing_interrupted``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np

from ...mforce_core.video.depth_sequence import EXR, PNG, Canvas, DepthSequence, laid_out
from ...mforce_core.video.steady import Steadier
from ...mforce_core.video.writer import VideoWriter
from ...mforce_core.whole_file import whole_file, whole_folder
from .clip_depth import NO_FRAME, ONE_FRAME, Clip
from .depth_files import output_folder, refusal
from .notices import notice

NO_FILES = "none"
#: Options of ``depth_files``, and the kind of file that each is.
FILES = {NO_FILES: None, "png (16-bit)": PNG, "exr": EXR}


@dataclass(frozen=True)
class Look:
    """What the video shows, and the files that are kept beside it.

    Attributes:
        layout, colors: options of `mforce_core.video.depth_sequence`.
        files: an option of `FILES`.
        prefix: beginning of the name of their folder, in the output folder.
    """

    layout: str
    colors: str
    files: str
    prefix: str


def make_depth_video(clip: Clip, steadier: Steadier, canvas: Canvas, look: Look) -> Path:
    """A video in ComfyUI's temporary folder, with the clip's sound and frames a second.

    Neither it nor a folder of depth files is there before all of it is.

    Raises:
        ValueError: fewer than two frames, frames of changing sizes, no depth, or files that cannot be written.
        InterruptProcessingException: the person pressed the button that stops a run.
    """
    frames = clip.pictures()
    start = list(islice(frames, 2))
    if len(start) < 2:
        raise ValueError(ONE_FRAME if start else NO_FRAME)
    temporary = Path(folder_paths.get_temp_directory())
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        with _folder(start[0], canvas, look, temporary) as folder:
            form = FILES[look.files]
            sequence = DepthSequence(Path(folder), form or PNG, canvas, form is not None)
            _write_depth(clip, chain(start, frames), sequence, steadier)
            return _write_video(clip, sequence, look, temporary)
    except ModuleNotFoundError as error:
        raise ValueError(f"{error} Or choose png as depth_files.") from error
    except OSError as error:
        raise refusal("the depth of the clip", error) from error


def _write_depth(clip: Clip, frames: Iterable[np.ndarray], sequence: DepthSequence, steadier: Steadier) -> None:
    # Without pictures: ComfyUI's page would go on showing the last one in place of the finished video.
    bar, progress = comfy.utils.ProgressBar(max(1, clip.count)), sequence.progress
    for _ in sequence.write(_until_interrupted(frames), steadier):
        bar.update_absolute(progress.done, max(progress.done, clip.count))
    for remark in clip.remarks:
        notice(remark)


def _write_video(clip: Clip, sequence: DepthSequence, look: Look, folder: Path) -> Path:
    bar, path = comfy.utils.ProgressBar(sequence.progress.done), folder / f"depth_{uuid4().hex}.mp4"
    with (
        whole_file(path) as partial,
        VideoWriter(partial, clip.rate, clip.sound(), sound_start=clip.sound_start, times=clip.times) as writer,
    ):
        for frame, depth in sequence.shown(_until_interrupted(clip.pictures()), look.colors):
            writer.write(laid_out(look.layout, frame, depth))
            bar.update(1)
        if writer.silent:
            notice(writer.silent)
    return path


def _folder(frame: np.ndarray, canvas: Canvas, look: Look, temporary: Path) -> AbstractContextManager[str | Path]:
    """For the depth files: a new one in the output folder where they are kept, else one that goes away."""
    if look.files == NO_FILES:
        return TemporaryDirectory(prefix="depth_", dir=temporary)
    height, width = frame.shape[:2] if canvas.original_size else canvas.placement(frame).size
    return whole_folder(output_folder(look.prefix, width, height))


def _until_interrupted(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    for frame in frames:
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield frame
