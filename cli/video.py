"""``mforce video``: a clip in, its depth as numbered files and as a video out; a stopped run can be resumed."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ..mforce_core.depth.files import LEVELS
from ..mforce_core.inputs import describe
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.placement import CROP, LETTERBOX
from ..mforce_core.results.folder import MARKER
from ..mforce_core.results.provenance import identify, versions
from ..mforce_core.settings import Settings
from ..mforce_core.text_file import read_text
from ..mforce_core.video.clips import open_clip
from ..mforce_core.video.depth_sequence import (
    DEPTH_ALONE,
    GRAY,
    PNG,
    SIDE_BY_SIDE,
    Canvas,
    DepthSequence,
    Progress,
    laid_out,
)
from ..mforce_core.video.flow import import_cv2
from ..mforce_core.video.frame_depth import FrameDepth
from ..mforce_core.video.steady import State, Steadier, Steadiness
from ..mforce_core.video.timing import TimeStamps
from ..mforce_core.video.writer import VideoWriter
from ..mforce_core.weights.tensor_files import open_safetensors
from ..mforce_core.whole_file import whole_file
from .generation import prepare
from .progress import messages, progress_bar, say

#: Files of a run that is not finished: where it stands.
PROGRESS = "progress.safetensors"
_FITS = {"pad": LETTERBOX, "crop": CROP}


@dataclass(frozen=True)
class Files:
    """What is written.

    Attributes:
        form: of the numbered depth files, see `mforce_core.video.depth_sequence`.
        keep: keep them when the videos are made.
        side_by_side: a video of the clip beside its depth, too.
        colors: of the videos, "gray" or a color map.
    """

    form: str = PNG
    keep: bool = True
    side_by_side: bool = False
    colors: str = GRAY


def run_video(
    clip: Path, settings: Settings, how: Steadiness, output: Path, files: Files, *, overwrite: bool = False
) -> Path:
    """Depth of a clip into a folder: ``depth/depth.000001.png`` and so on, ``depth.mp4``, ``metadata.json``.

    A folder that holds the beginning of the same run is gone on with; a finished one is left as it is.

    Raises:
        ValueError: the clip cannot be read or has one frame, or the folder holds something else.
    """
    with open_clip(clip):  # before the model is loaded
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
    canvas = Canvas(settings.canvas[::-1], _FITS[settings.fit], settings.original_size)
    sequence = DepthSequence(output / "depth", files.form, canvas, files.keep, progress)
    with messages.status("Loading the model"):
        pipeline = Pipeline(settings, parts, [settings.prompt], say)
    steadier = Steadier(FrameDepth(pipeline, settings), how, state)
    try:
        times = _make_depth(clip, steadier, sequence, output, order)
        _make_videos(clip, output, files, sequence, times)
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
        "png": depth_step if files.form == PNG else None,
        "video_range": dict(zip(("far", "near"), progress.range, strict=True)),
        "model_files": pipeline.model_files,
        "versions": versions(),
    }
    with whole_file(output / MARKER) as partial:
        partial.write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (output / PROGRESS).unlink()
    if not files.keep:
        shutil.rmtree(output / "depth")
    return output


def _make_depth(clip: Path, steadier: Steadier, sequence: DepthSequence, output: Path, order: Any) -> TimeStamps | None:
    """Write the depth files that are not there yet; returns when frames are shown, where they do not come at a rate."""
    progress = sequence.progress
    with open_clip(clip) as video, progress_bar("depth") as advance:
        frames = iter(video)
        if progress.done:
            next(islice(frames, progress.done - 1, None), None)
        else:
            start = list(islice(frames, 2))
            if len(start) < 2:
                frames_in_it = "one frame" if start else "no frame"
                raise ValueError(f"{clip.name} has {frames_in_it} and is no clip: use mforce i2d for one picture.")
            for note in (*video.notes, describe("The clip", sequence.canvas.placement(start[0]))):
                if note:
                    say(note)
            frames = chain(start, frames)
            output.mkdir(parents=True, exist_ok=True)
            _save(output, order, progress, steadier.state)  # so that what stops the first batch can be resumed, too
        said = video.notes
        sequence.folder.mkdir(exist_ok=True)
        advance(progress.done, max(progress.done, video.count))
        for _ in sequence.write(frames, steadier):
            _save(output, order, progress, steadier.state)
            advance(progress.done, max(progress.done, video.count))
        for remark in (*video.notes, video.breaks_off):
            if remark and remark not in said:
                say(remark)
        return video.times


def _make_videos(clip: Path, output: Path, files: Files, sequence: DepthSequence, times: TimeStamps | None) -> None:
    """The depth files as a video, in one range for the whole clip, with the clip's sound."""
    layouts = {"depth.mp4": DEPTH_ALONE} | ({"side_by_side.mp4": SIDE_BY_SIDE} if files.side_by_side else {})
    with open_clip(clip) as video, ExitStack() as stack:
        advance = stack.enter_context(progress_bar("video"))
        partials = [stack.enter_context(whole_file(output / name)) for name in layouts]
        writers = [
            stack.enter_context(VideoWriter(partial, video.rate, clip, sound_start=video.begins, times=times))
            for partial in partials
        ]
        for number, (frame, depth) in enumerate(sequence.shown(video, files.colors), 1):
            for writer, layout in zip(writers, layouts.values(), strict=True):
                writer.write(laid_out(layout, frame, depth))
            advance(number, sequence.progress.done)
        if silent := writers[0].silent:
            say(silent)


def _order(clip: Path, settings: Settings, how: Steadiness, files: Files) -> dict[str, Any]:
    """All that decides the depth files, JSON-able."""
    asked = {name: value for name, value in settings.decisive().items() if name != "input"}
    form = files.form if files.keep else None
    return json.loads(
        json.dumps({"clip": identify(clip), "settings": asked, "steadiness": how.to_dict(), "form": form})
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
    with open_safetensors(path) as stored:
        found = stored.metadata() or {}
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # not a dict
    if json.loads(found.get("order", "null")) != order:
        raise ValueError(f"The folder {output} holds the beginning of another run: name another, or add `overwrite`.")
    progress = Progress(**json.loads(found["progress"]))
    if progress.done:
        say(f"Going on after frame {progress.done}.")
    return progress, State.from_tensors(tensors)


def _remove(output: Path) -> None:
    """Take away what an earlier run wrote.

    Raises:
        ValueError: the folder is not one of ours.
    """
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not any((output / name).is_file() for name in (MARKER, PROGRESS)):
        raise ValueError(f"The folder {output} was not written by mforce and is not overwritten: name another.")
    for name in (MARKER, PROGRESS, "depth.mp4", "side_by_side.mp4"):
        (output / name).unlink(missing_ok=True)
    shutil.rmtree(output / "depth", ignore_errors=True)
