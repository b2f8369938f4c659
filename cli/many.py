"""``mforce i2d`` for many pictures: one model, one progress bar, and results from which a stopped run resumes."""

from __future__ import annotations

import glob
import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from queue import Empty
from typing import Any, NamedTuple

from ..mforce_core.inputs import read_given
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.results.folder import MARKER, output_folder
from ..mforce_core.results.provenance import identify
from ..mforce_core.results.writing import check_writers
from ..mforce_core.settings import Settings
from ..mforce_core.text_file import read_text
from ..mforce_core.weights.parts import Parts
from .generation import prepare
from .progress import progress_bar, say

#: What became of every picture; it also marks the folder as ours.
INDEX = "results.json"

#: Settings that do not decide a result's meaning: a run may be continued with others.
_OF_THE_MACHINE = ("device", "threads", "compile", "cuda_graph")

#: Bad pictures that are printed; the index has all.
_PRINTED = 20


class Outcome(NamedTuple):
    """What became of a picture: "done", "kept" from an earlier run, or "failed" and why."""

    name: str
    status: str
    reason: str = ""


def run_many(
    pictures: Mapping[str, Path], settings: Settings, output: Path, *, overwrite: bool, devices: Sequence[str]
) -> list[Outcome]:
    """Run pictures one by one into ``output/NAME``, on one device here or on several by a process each.

    Whole results of an earlier run are kept. A picture that cannot be used is listed at the end.

    Raises:
        ValueError: the output folder is not one of ours, or nothing can run with these settings.
    """
    check_writers()
    _check_output(output)
    jobs = {name: replace(settings, input=str(path.absolute())) for name, path in pictures.items()}
    first, parts = prepare(replace(next(iter(jobs.values())), device=devices[0]))
    resolved = [first, *(prepare(replace(first, device=device))[0] for device in devices[1:])]
    output.mkdir(parents=True, exist_ok=True)
    for name in pictures:
        for left in output.glob(f".{glob.escape(name)}.part-*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    _write_index(output, pictures, [])
    outcomes: list[Outcome] = []
    shares = [dict(list(jobs.items())[start :: len(devices)]) for start in range(len(devices))]
    try:
        with progress_bar(settings.mode) as advance:
            advance(0, len(jobs))
            for outcome in _outcomes(resolved, parts, shares, output, overwrite):
                outcomes.append(outcome)
                advance(len(outcomes), len(jobs))
    finally:
        _write_index(output, pictures, outcomes)
    return outcomes


def _outcomes(
    resolved: Sequence[Settings], parts: Parts, shares: Sequence[Mapping[str, Settings]], output: Path, overwrite: bool
) -> Iterator[Outcome]:
    if len(resolved) == 1:
        yield from _work(resolved[0], parts, shares[0], output, overwrite)
        return
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [
        context.Process(target=_worker, args=(queue, one, parts, share, output, overwrite), daemon=True)
        for one, share in zip(resolved, shares, strict=True)
    ]
    for worker in workers:
        worker.start()
    try:
        finished = 0
        while finished < len(workers):
            try:
                found = queue.get(timeout=1)
            except Empty:
                if any(worker.exitcode for worker in workers):
                    raise ValueError("A process of a device was ended from outside, perhaps for its memory.") from None
                continue
            if isinstance(found, str):
                raise ValueError(found)
            if found is None:
                finished += 1
            else:
                yield found
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _worker(queue: Any, *arguments: Any) -> None:
    """One device's share in a process of its own; an error that ends it becomes a sentence."""
    try:
        for outcome in _work(*arguments):
            queue.put(outcome)
        queue.put(None)
    except KeyboardInterrupt:
        return
    except Exception as error:
        queue.put(f"{arguments[0].device}: {error}")


def _work(
    settings: Settings, parts: Parts, jobs: Mapping[str, Settings], output: Path, overwrite: bool
) -> Iterator[Outcome]:
    pipeline: Pipeline | None = None
    for name, given_job in jobs.items():
        job = replace(settings, input=given_job.input)
        folder = output / name
        try:
            if not overwrite and folder.exists():
                _check_kept(folder, job)
                yield Outcome(name, "kept")
                continue
            given = read_given(job)
        except (ValueError, OSError) as error:
            yield Outcome(name, "failed", str(error))
            continue
        pipeline = pipeline or Pipeline(job, parts, [job.prompt], say)
        try:
            (result,) = pipeline.generate([job], [given])
            with output_folder(folder, overwrite=overwrite) as work:
                result.write(work)
        except ValueError as error:
            yield Outcome(name, "failed", str(error))
            continue
        yield Outcome(name, "done")


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
    wanted = job.to_dict()
    if {name: value for name, value in wanted.items() if name not in _OF_THE_MACHINE} != {
        name: before.get(name) for name in wanted if name not in _OF_THE_MACHINE
    } or inputs.get("input") != identify(Path(str(job.input))):
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
    partial = output / f".{INDEX}.part"
    partial.write_text(json.dumps({"format": 1, "results": rows}, indent=2, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(output / INDEX)


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
