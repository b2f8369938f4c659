"""``mforce i2d`` for many pictures: one model, one progress bar, and results from which a stopped run resumes."""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..mforce_core.inputs import read_given
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.results.folder import MARKER, output_folder
from ..mforce_core.results.provenance import identify
from ..mforce_core.results.writing import check_writers
from ..mforce_core.settings import Settings
from ..mforce_core.text_file import read_text
from ..mforce_core.whole_file import whole_file
from ..training.data.workers import map_items
from .generation import prepare
from .progress import progress_bar, say
from .spread import Workers, spread

#: What became of every picture; it also marks the folder as ours.
INDEX = "results.json"

#: Bad pictures that are printed; the index has all.
_PRINTED = 20


class Outcome(NamedTuple):
    """What became of a picture: "done", "kept" from an earlier run, or "failed" and why."""

    name: str
    status: str
    reason: str = ""


class Job(NamedTuple):
    """A picture, by its absolute path, and what its result is called."""

    name: str
    picture: str


class Run(NamedTuple):
    """What the results of all pictures have in common; the output is absolute."""

    settings: Settings
    output: Path
    overwrite: bool


def run_many(
    pictures: Mapping[str, Path],
    settings: Settings,
    output: Path,
    *,
    overwrite: bool,
    devices: Sequence[str],
    ray_workers: int = 0,
    ray_gpus: float = 0,
) -> list[Outcome]:
    """Run pictures one by one into ``output/NAME``, on one device here, on several by a process each, or with Ray.

    Whole results of an earlier run are kept. A picture that cannot be used is listed at the end.

    Args:
        ray_workers: that many Ray actors instead, each with the one device of its own machine; pictures, model and
            output lie where all machines see them under one path.
        ray_gpus: GPUs that Ray sets aside for an actor.

    Raises:
        ValueError: the output folder is not one of ours, or nothing can run with these settings.
    """
    check_writers()
    if ray_workers and len(devices) > 1:
        raise ValueError("`device` names one device of every actor with --ray: leave the others out.")
    _check_output(output)
    jobs = [Job(name, str(path.absolute())) for name, path in pictures.items()]
    first = replace(settings, input=jobs[0].picture)
    if ray_workers:
        # What Ray sets aside for an actor. An actor that loaded PyTorch before Ray said so would take every core, and
        # note other threads in its results than its neighbors.
        first = replace(first, threads=settings.threads or 1)
    # An actor's machine may have a device that this one has not.
    resolved = [prepare(replace(first, device="cpu" if ray_workers else device))[0] for device in devices]
    run = Run(replace(first, threads=resolved[0].threads), output.absolute(), overwrite)
    output.mkdir(parents=True, exist_ok=True)
    for name in pictures:
        for left in output.glob(f".{glob.escape(name)}.part-*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    _write_index(output, pictures, [])
    outcomes: list[Outcome] = []
    if ray_workers:  # one picture at a time, since they take long
        found = map_items(PictureWorker, (run, devices[0]), jobs, ray_workers=ray_workers, gpus_per_worker=ray_gpus)
    else:
        found = spread(PictureWorker, run, jobs, Workers(devices))
    try:
        with progress_bar(settings.mode) as advance:
            advance(0, len(jobs))
            for outcome in found:
                outcomes.append(outcome)
                advance(len(outcomes), len(jobs))
    finally:
        _write_index(output, pictures, outcomes)
    return outcomes


class PictureWorker:
    """Makes results of pictures, one a call; the model is loaded for the first one that needs it."""

    def __init__(self, run: Run, device: str) -> None:
        self.output, self.overwrite = run.output, run.overwrite
        self.settings, self.parts = prepare(replace(run.settings, device=device))
        self.pipeline: Pipeline | None = None
        self._said: set[str] = set()
        self._now = ""

    def __call__(self, job: Job) -> Outcome:
        settings, folder = replace(self.settings, input=job.picture), self.output / job.name
        try:
            if not self.overwrite and folder.exists():
                _check_kept(folder, settings)
                return Outcome(job.name, "kept")
            given = read_given(settings)
        except (ValueError, OSError) as error:
            return Outcome(job.name, "failed", str(error))
        self.pipeline = self.pipeline or Pipeline(settings, self.parts, [settings.prompt], self._say)
        self._now = f"{job.name}: "
        try:
            (result,) = self.pipeline.generate([settings], [given])
            with output_folder(folder, overwrite=self.overwrite) as work:
                result.write(work)
        except ValueError as error:
            return Outcome(job.name, "failed", str(error))
        return Outcome(job.name, "done")

    def _say(self, sentence: str) -> None:
        """Each sentence once: said of a thousand pictures it would hide all others. Every metadata.json has it."""
        if sentence not in self._said:
            self._said.add(sentence)
            say(self._now + sentence + (" Of further pictures only their metadata.json says so." if self._now else ""))


def _check_kept(folder: Path, job: Settings) -> None:
    """Raises ValueError where a folder does not hold the whole result of a job."""
    try:
        metadata = json.loads(read_text(folder / MARKER))
        before, inputs, files = metadata["settings"], metadata["input_files"], metadata["sha256"]
        whole = all((folder / name).is_file() for name in files)
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise ValueError(f"{folder} holds something else than a whole result: remove it, or add `overwrite`.")
    wanted = job.decisive()
    if wanted != {name: before.get(name) for name in wanted} or inputs.get("input") != identify(Path(str(job.input))):
        raise ValueError(f"{folder} holds a result of other settings or of another picture: add `overwrite`.")


def _check_output(output: Path) -> None:
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise ValueError(f"The output {output} is a file or a link: name a folder with `output`.")
    if output.exists() and any(output.iterdir()) and not (output / INDEX).is_file():
        raise ValueError(f"The output folder {output} holds files of something else: name another with `output`.")


def _write_index(output: Path, pictures: Mapping[str, Path], outcomes: Sequence[Outcome]) -> None:
    """Write the index; pictures without an outcome are waiting."""
    known = {outcome.name: outcome for outcome in outcomes}
    rows = {}
    for name, path in pictures.items():
        outcome = known.get(name, Outcome(name, "waiting"))
        rows[name] = {"input": str(path.absolute()), "status": outcome.status}
        if outcome.reason:
            rows[name]["reason"] = outcome.reason
    text = json.dumps({"format": 1, "results": rows}, indent=2, ensure_ascii=False) + "\n"
    with whole_file(output / INDEX) as partial:
        partial.write_text(text, "utf-8")


def report(outcomes: Sequence[Outcome], tell: Callable[[str], None] = say) -> int:
    """Say what became of the pictures; returns the exit code, 1 where some failed."""
    count = {status: sum(outcome.status == status for outcome in outcomes) for status in ("done", "kept", "failed")}
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed[:_PRINTED]:
        tell(f"Failed: {outcome.reason}")
    if len(failed) > _PRINTED:
        tell(f"... and {len(failed) - _PRINTED} more; {INDEX} lists all.")
    kept = f", {count['kept']} kept from before" if count["kept"] else ""
    tell(f"{count['done']} of {len(outcomes)} pictures done{kept}, {count['failed']} failed.")
    return 1 if failed else 0
