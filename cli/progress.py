"""A progress bar on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .errors import as_options

#: Messages and bars; results go to stdout.
messages = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """A sentence for the person, taken literally: brackets are no markup."""
    messages.print(as_options(text), markup=False)


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yield ``advance(done, total)``; the bar stands still until its first call."""
    with progress_bars(description) as (advance,):
        yield advance


@contextmanager
def progress_bars(*descriptions: str) -> Iterator[tuple[Callable[[int, int], None], ...]]:
    """Yield an ``advance`` for each of several bars, one below the other.

    An error that comes before a bar has moved takes the bar away: it would stand empty above the error's sentence.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages) as bar:
        tasks = [bar.add_task(description, total=None) for description in descriptions]
        try:
            yield tuple(partial(_advance, bar, task) for task in tasks)
        except BaseException:
            for task in tasks:
                if bar.tasks[task].total is None:
                    bar.update(task, visible=False)
            raise


def _advance(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)
