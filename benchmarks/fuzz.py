"""Damaged files by the thousand into every reader of outside data.

``python -m mforce.benchmarks.fuzz --count 100000``. A fault is: an error that the reader does not document, a message
of more than one line or 1,000 characters, more than 20 seconds or 2 GB, a file left behind, or the end of the process.
Every case can be repeated: it follows from the seed and its number (``--start NUMBER --count 1``).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from queue import Empty
from random import Random
from typing import Any, NamedTuple

from .fuzz_subjects import Subject, subjects
from .process_memory import status_bytes

#: Seconds that one input may take, and bytes that the process may grow by.
SECONDS, MEMORY = 20.0, 2 << 30
_LONGEST_MESSAGE = 1000


class Fault(NamedTuple):
    """What went wrong with which input."""

    subject: str
    number: int
    what: str


def run_case(name: str, subject: Subject, seed: int, number: int, folder: Path) -> str | None:
    """Damage one file, read it in the empty ``folder``, and say what is wrong with what happened, if anything."""
    rng = Random(f"{seed}/{name}/{number}")
    content = subject.damage(rng.choice(subject.seeds), subject.seeds, rng)
    path = folder / f"input{subject.suffix}"
    path.write_bytes(content)
    start = time.monotonic()
    problem = _problem(subject, path)
    if time.monotonic() - start > SECONDS:
        problem = problem or f"took {time.monotonic() - start:.0f} s"
    return problem


def _problem(subject: Subject, path: Path) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subject.read(path)
    except subject.errors as error:
        text = str(error)
        if "\n" in text or len(text) > _LONGEST_MESSAGE:
            return f"a message of {len(text)} characters: {text[:80]!r}"
        if type(error) in (UnicodeDecodeError, UnicodeEncodeError, json.JSONDecodeError):
            return f"{type(error).__name__}: {_place(error)}"
    except Exception as error:
        return f"{type(error).__name__}: {_place(error)}"
    return None


def _place(error: Exception) -> str:
    """The innermost place of this project that the error passed through, and its message."""
    root = str(Path(__file__).parent.parent)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(root)]
    place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
    return f"{place}: {' '.join(str(error).split())[:120]}"


def _work(names: list[str], seed: int, start: int, stop: int, now: Any, found: Any) -> None:
    """Run the numbers [start, stop) of all subjects in turn; ``now`` is the case and the time it began."""
    with tempfile.TemporaryDirectory(prefix="mforce-fuzz-") as base:
        tempfile.tempdir = str(Path(base) / "temp")
        Path(tempfile.tempdir).mkdir()
        (Path(base) / "seeds").mkdir()
        every = subjects(Path(base) / "seeds")
        case = Path(base) / "case"
        before = _peak_memory()
        for number in range(start, stop):
            name = names[number % len(names)]
            case.mkdir()
            now[0], now[1] = number, time.monotonic()
            problem = run_case(name, every[name], seed, number, case)
            now[1] = 0.0
            left = sorted(path.name for path in Path(tempfile.tempdir).iterdir())
            if left:
                problem = problem or f"left {left[0]} behind"
                shutil.rmtree(tempfile.tempdir)
                Path(tempfile.tempdir).mkdir()
            grown = _peak_memory() - before
            if grown > MEMORY:
                problem, before = problem or f"took {grown / 2**30:.1f} GB", _peak_memory()
            if problem is not None:
                found.put(Fault(name, number, problem))
            shutil.rmtree(case)
    found.put(None)


def _peak_memory() -> int:
    """Bytes that this process had in memory at most; 0 where the system does not say."""
    try:
        return status_bytes("VmHWM")
    except OSError:
        return 0


def fuzz(names: list[str], count: int, seed: int, start: int = 0, *, progress: bool = False) -> list[Fault]:
    """Run ``count`` inputs in a process of their own, which is started again where one ends or hangs it."""
    context = multiprocessing.get_context("spawn")
    faults: list[Fault] = []
    first, stop = start, start + count
    while first < stop:
        now, found = context.Array("d", [first, 0.0]), context.Queue()
        worker = context.Process(target=_work, args=(names, seed, first, stop, now, found), daemon=True)
        worker.start()
        done, ended = False, None
        while not done:
            try:
                fault = found.get(timeout=1.0)
                done = fault is None
                faults += [] if fault is None else [fault]
                if fault is not None and progress:
                    print(*fault, file=sys.stderr, flush=True)
                continue
            except Empty:
                pass
            number, began = int(now[0]), now[1]
            if began and time.monotonic() - began > SECONDS + 10:
                worker.kill()
                ended = f"hung for {SECONDS:.0f} s"
            elif not worker.is_alive() and found.empty():
                ended = f"ended the process (exit code {worker.exitcode})"
            if ended is not None:
                faults.append(Fault(names[number % len(names)], number, ended))
                if progress:
                    print(*faults[-1], file=sys.stderr, flush=True)
                break
        worker.join()
        first = stop if done else number + 1
    return faults


def main() -> int:
    """Run from the command line; the exit code is 1 where a fault was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="inputs, spread over all subjects")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", action="append", help="a subject by its name; may be given again")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        known = list(subjects(Path(folder)))
    names = options.only or known
    if unknown := set(names) - set(known):
        parser.error(f"{', '.join(sorted(unknown))}: unknown; choose from {', '.join(known)}")
    began = time.monotonic()
    faults = fuzz(names, options.count, options.seed, options.start, progress=True)
    seconds = time.monotonic() - began
    kinds = Counter((fault.subject, re.sub(r"0x\w+|\d+", "#", fault.what)) for fault in faults)
    figures = {
        "inputs": options.count,
        "seed": options.seed,
        "subjects": names,
        "faults": len(faults),
        "kinds": [[*kind, number] for kind, number in kinds.most_common()],
        "seconds": round(seconds),
    }
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for (subject, what), number in kinds.most_common():
        print(f"{number:6} {subject}: {what}")
    print(f"{options.count} inputs into {len(names)} readers: {len(faults)} faults, {seconds:.0f} s.")
    return 1 if faults else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
