"""Students of few steps against their teacher of many, by the measures of :mod:`.comparison`."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..mforce_core.model.config import Distilled
from ..mforce_core.release import LOG2_ALPHA
from .comparison import Counts, Inputs, Measured, Ways, kept, make, released, row
from .sampling_subject import Subject, Way


def in_few(distilled: Distilled | None, steps: int) -> Ways:
    """Without guidance, as a distilled model is to be run or, for any other, as the release does."""
    own = distilled or Distilled(steps, f"tilt log2_alpha={LOG2_ALPHA:g}")
    return Ways(*(Way(path, steps, own.sampler, cfg=1.0) for path in (own.path, "i2d", "d2i")))


class Student(NamedTuple):
    """A model that is loaded when its turn comes, and how it asks to be run."""

    load: Callable[[], Subject]
    distilled: Distilled | None


def compare(
    teacher: Subject, students: Mapping[str, Student], steps: Sequence[int], counts: Counts, *,
    teacher_steps: int, reference: Path | None = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """The teacher's row, then those of the teacher itself without guidance on the first student's path, and of every
    student, at every number of steps, each as soon as it is known. Beside the teacher one student is in memory.

    Args:
        students: models by name.
        reference: file that keeps what the teacher made.
    """
    inputs, ways = Inputs(teacher, counts), released(teacher_steps)
    own = Measured(kept(teacher, ways, inputs, reference), inputs, teacher)
    yield row("teacher", ways, own)
    first = next((student.distilled for student in students.values()), None)
    for name, student in {"teacher, no guidance": Student(lambda: teacher, first), **students}.items():
        subject = student.load()
        for number in steps:
            few = in_few(student.distilled, number)
            measured = Measured(make(subject, few, inputs), inputs, teacher)
            yield row(name, few, measured) | {
                "over_teacher": measured.over(own), "minus_teacher": measured.minus(own),
            }  # fmt: skip
        del subject
        gc.collect()  # a model and what counts its calls hold each other
