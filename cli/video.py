"""``mforce video``: a clip in, its depth as numbered files and as a video out; a stopped run can be resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..mforce_core.depth.colormaps import colorize
from ..mforce_core.depth.files import LEVELS, read_depth, write_16_bit, write_exr
from ..mforce_core.depth.images import FAR_LIMIT
from ..mforce_core.depth.range import percentile_range, stretch
from ..mforce_core.inputs import describe
from ..mforce_core.picture.placement import CROP, LETTERBOX, Placement, place
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.results.folder import MARKER
from ..mforce_core.results.provenance import identify, versions
from ..mforce_core.settings import Settings
from ..mforce_core.text_file import read_text
from ..mforce_core.video.files import VideoReader, VideoWriter
from ..mforce_core.video.flow import import_cv2
from ..mforce_core.video.frame_depth import FrameDepth
from ..mforce_core.video.steady import State, Steadier, Steadiness, SteadyFrame, batches
from ..mforce_core.whole_file import whole_file
from .generation import prepare
from .progress import messages, progress_bar, say

#: Files of a run that is not finished: where it stands.
PROGRESS = "progress.safetensors"
#: Settings that do not decide the depth: a run may be resumed with others.
_OF_THE_MACHINE = ("device", "threads", "compile", "cuda_graph")
_FITS = {"pad": LETTERBOX, "crop": CROP}
FORMS = ("png", "exr")
GRAY = "gray"
#: Percent of a frame's pixels beyond either end of its range, and of the frames whose range counts for the clip.
_CLIPPED, _FRAMES_CLIPPED = 1.0, 5.0


@dataclass(frozen=True)
class Files:
    """What is written.

    Attributes:
        form: of the numbered depth files, of `FORMS`.
        keep: keep them when the videos are made.
        side_by_side: a video of the clip beside its depth, too.
        colors: of the videos, "gray" or a color map.
    """

    form: str = "png"
    keep: bool = True
    side_by_side: bool = False
    colors: str = GRAY


@dataclass
class Progress:
    """Where a run stands.

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


def run_video(
    clip: Path, settings: Settings, how: Steadiness, output: Path, files: Files, *, overwrite: bool = False
) -> Path:
    """Depth of a clip into a folder: ``depth/depth.000001.png`` and so on, ``depth.mp4``, ``metadata.json``.

    A folder that holds the beginning of the same run is gone on with; a finished one is left as it is.

    Raises:
        ValueError: the clip cannot be read or has one frame, or the folder holds something else.
    """
    with VideoReader(clip):  # before the model is loaded
        pass
    if how.flow:
        import_cv2()
    settings, parts = prepare(settings)
    order = _order(clip, settings, how, files)
    if overwrite:
        _remove(output)
    elif (output / MARKER).is_file():
        found = json.loads(read_text(output / MARKER))
        if found.get("order") != order:
            raise ValueError(f"The folder {output} holds depth of another clip or of other settings: add `overwrite`.")
        if found.get("files") != asdict(files):
            raise ValueError(
                f"The folder {output} is of another --sequence, --side-by-side or --colors: add `overwrite`."
            )
        say("All frames were there already.")
        return output
    progress, state = _resumed(output, order)
    with messages.status("Loading the model"):
        pipeline = Pipeline(settings, parts, [settings.prompt], say)
    steadier = Steadier(FrameDepth(pipeline, settings), how, state)
    try:
        rate = _make_depth(clip, settings, steadier, output, files, progress, order)
        _make_videos(clip, output, files, progress, rate)
    except KeyboardInterrupt:
        say(f"Stopped after {progress.done} frames, all of them whole. The same command with this output resumes.")
        raise
    depth_step = {"depth_per_step": progress.step, "farthest": LEVELS * (progress.step or 0)}
    metadata = {
        "format": 1,
        "kind": "video",
        "order": order,
        "files": asdict(files),
        "frames": progress.done,
        "shots_start_at": progress.cuts,
        "unit": "relative, larger is farther; one scale for a shot while the camera rests",
        "png": depth_step if files.form == "png" else None,
        "video_range": dict(zip(("far", "near"), _range(progress.ranges), strict=True)),
        "model_files": pipeline.model_files,
        "versions": versions(),
    }
    with whole_file(output / MARKER) as partial:
        partial.write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (output / PROGRESS).unlink()
    if not files.keep:
        shutil.rmtree(output / "depth")
    return output


def _make_depth(
    clip: Path, settings: Settings, steadier: Steadier, output: Path, files: Files, progress: Progress, order: Any
) -> Fraction:
    """Write the depth files that are not there yet; returns the frames a second."""
    with VideoReader(clip) as video, progress_bar("depth") as advance:
        frames = iter(video)
        if progress.done:
            next(islice(frames, progress.done - 1, None), None)
        else:
            start = list(islice(frames, 2))
            if len(start) < 2:
                frames_in_it = "one frame" if start else "no frame"
                raise ValueError(f"{clip.name} has {frames_in_it} and is no clip: use mforce i2d for one picture.")
            frames = chain(start, frames)
        (output / "depth").mkdir(parents=True, exist_ok=True)
        advance(progress.done, max(progress.done, video.count))
        for batch in batches(_placed(frames, settings, first=progress.done == 0), steadier.how.batch):
            placement = batch[0][1]
            for frame in steadier(torch.stack([picture for picture, _ in batch]), placement.content):
                _write_frame(output, frame, placement, settings, files, progress)
            _save(output, order, progress, steadier.state)
            advance(progress.done, max(progress.done, video.count))
        return video.rate


def _placed(frames: Iterator[np.ndarray], settings: Settings, *, first: bool) -> Iterator[tuple[Tensor, Placement]]:
    """Frames on the model's canvas, (3, H, W) in [0, 1], and how they came there."""
    for pixels in frames:
        placement = place(pixels.shape[:2], settings.canvas[::-1], _FITS[settings.fit])
        if first and (note := describe("The clip", placement)):
            say(note)
        first = False
        canvas = torch.from_numpy(placement.place_photo(Image.fromarray(pixels)))
        yield rearrange(canvas, "h w c -> c h w").float() / 255, placement


def _write_frame(
    output: Path, frame: SteadyFrame, placement: Placement, settings: Settings, files: Files, progress: Progress
) -> None:
    depth = placement.without_bars(frame.depth[None])
    known = depth.isfinite()
    if not known.any():
        raise ValueError(f"Frame {progress.done + 1} came out without depth: the model does not fit `size`.")
    if progress.step is None:
        progress.step = FAR_LIMIT * float(depth[known].median()) / LEVELS
    low, high = percentile_range(torch.where(known, 1 / depth, 0.0), known, _CLIPPED)[0].tolist()
    whole = placement.restore_depth(frame.depth[None]) if settings.original_size else depth
    progress.done += 1
    progress.ranges.append((low, high))
    if frame.starts_shot:
        progress.cuts.append(progress.done)
    with whole_file(_frame_path(output, progress.done, files.form)) as partial:
        if files.form == "png":
            write_16_bit(partial, whole[0].numpy(), step=progress.step)
        else:
            write_exr(partial, whole[0].numpy())


def _make_videos(clip: Path, output: Path, files: Files, progress: Progress, rate: Fraction) -> None:
    """The depth files as a video, in one range for the whole clip, with the clip's sound."""
    limits = torch.tensor([_range(progress.ranges)])
    names = ["depth.mp4", "side_by_side.mp4"] if files.side_by_side else ["depth.mp4"]
    with ExitStack() as stack:
        video, advance = stack.enter_context(VideoReader(clip)), stack.enter_context(progress_bar("video"))
        partials = [stack.enter_context(whole_file(output / name)) for name in names]
        writers = [stack.enter_context(VideoWriter(partial, rate, clip)) for partial in partials]
        for number, pixels in zip(range(1, progress.done + 1), video, strict=False):
            shown = _shown(_frame_path(output, number, files.form), limits, files.colors)
            picture = Image.fromarray(pixels).resize(shown.shape[1::-1], Image.Resampling.LANCZOS)
            for writer, pictures in zip(writers, ([shown], [np.asarray(picture), shown]), strict=False):
                writer.write(np.concatenate(pictures, axis=1))
            advance(number, progress.done)


def _shown(path: Path, limits: Tensor, colors: str) -> np.ndarray:
    """A depth file as a picture (H, W, 3) uint8: near is bright or warm, black where there is no depth."""
    depth = torch.from_numpy(read_depth(path).depth)[None]
    known = depth.isfinite()
    near = stretch(torch.where(known, 1 / depth, 0.0), known, limits)[0].numpy()
    picture = (
        np.repeat(near[..., None], 3, -1) if colors == GRAY else colorize(near, colors) * known[0, ..., None].numpy()
    )
    return (255 * picture).round().astype(np.uint8)


def _range(ranges: list[tuple[float, float]]) -> tuple[float, float]:
    """1 / depth at the far and at the near end of the videos, but for what a few frames alone have."""
    low, high = np.array(ranges).T
    return float(np.percentile(low, _FRAMES_CLIPPED)), float(np.percentile(high, 100 - _FRAMES_CLIPPED))


def _frame_path(output: Path, number: int, form: str) -> Path:
    return output / "depth" / f"depth.{number:06d}.{form}"


def _order(clip: Path, settings: Settings, how: Steadiness, files: Files) -> dict[str, Any]:
    """All that decides the depth files, JSON-able."""
    asked = {name: value for name, value in settings.to_dict().items() if name not in (*_OF_THE_MACHINE, "input")}
    return json.loads(
        json.dumps({"clip": identify(clip), "settings": asked, "steadiness": how.to_dict(), "form": files.form})
    )


def _save(output: Path, order: dict[str, Any], progress: Progress, state: State) -> None:
    with whole_file(output / PROGRESS) as partial:
        save_file(
            state.tensors(), partial, metadata={"order": json.dumps(order), "progress": json.dumps(vars(progress))}
        )


def _resumed(output: Path, order: dict[str, Any]) -> tuple[Progress, State]:
    """Where the run in a folder stands.

    Raises:
        ValueError: it holds something else.
    """
    path = output / PROGRESS
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise ValueError(f"The output {output} is a file or a link: name a folder with `output`.")
    if not path.is_file():
        if output.exists() and any(output.iterdir()):
            raise ValueError(f"The output folder {output} already holds files: name another, or add `overwrite`.")
        return Progress(), State()
    with safe_open(path, "pt") as stored:
        found = stored.metadata() or {}
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # not a dict
    if json.loads(found.get("order", "null")) != order:
        raise ValueError(f"The folder {output} holds the beginning of another run: name another, or add `overwrite`.")
    progress = Progress(**json.loads(found["progress"]))
    say(f"Going on after frame {progress.done}.")
    return progress, State.from_tensors(tensors)


def _remove(output: Path) -> None:
    """Take away what an earlier run wrote.

    Raises:
        ValueError: the folder is not one of ours.
    """
    if not output.exists() or not any(output.iterdir()):
        return
    if not any((output / name).is_file() for name in (MARKER, PROGRESS)):
        raise ValueError(f"The folder {output} was not written by mforce and is not overwritten: name another.")
    for name in (MARKER, PROGRESS, "depth.mp4", "side_by_side.mp4"):
        (output / name).unlink(missing_ok=True)
    shutil.rmtree(output / "depth", ignore_errors=True)
