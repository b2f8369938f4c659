"""The same work on every item of a list: here one after the other, or with Ray Data on many processes and machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .extras import need

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Errors whose text says what is wrong.
_SENTENCES = (ValueError, OSError, ModuleNotFoundError)


def map_items(
    worker: Callable[..., Callable[[Item], Result]],
    arguments: tuple[Any, ...],
    items: Sequence[Item],
    *,
    ray_workers: int = 0,
    gpus_per_worker: float = 0,
) -> Iterator[Result]:
    """``worker(*arguments)`` called with each item; results in the order in which they are done.

    Args:
        worker: a class whose instances take an item; made once a process.
        items: such as the shards of a data set; what Ray hands from machine to machine, so paths and not contents.
        ray_workers: 0 works in this process; else that many Ray actors, on the cluster that Ray is connected to or
            started on this machine.
        gpus_per_worker: share of a GPU that Ray sets aside for an actor.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ValueError: on Ray, what a worker could not do, in its own words.
    """
    if ray_workers == 0:
        work = worker(*arguments)
        for item in items:
            yield work(item)
        return
    data = need("ray.data", "--ray", "ray")
    # A row a block: every item is handed to the next worker that is free.
    rows = data.from_items([{"index": index} for index in range(len(items))], override_num_blocks=len(items))
    done = rows.map(
        _Actor,
        fn_constructor_args=(worker, arguments, items),
        compute=data.ActorPoolStrategy(size=min(ray_workers, len(items))),
        num_gpus=gpus_per_worker,
    )
    for row in done.iter_rows():
        answer: _Answer = row["answer"]
        if answer.problem is not None:
            raise ValueError(answer.problem)
        yield answer.result


@dataclass(frozen=True)
class _Answer:
    """What a worker gave, or why it gave nothing; no tuple, which Ray would make a list of."""

    result: Any = None
    problem: str | None = None


class _Actor:
    """A worker as Ray Data wants it: rows in, rows out. Ray would start an actor that raises again and again."""

    def __init__(
        self, worker: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...], items: Sequence[Any]
    ) -> None:
        self.items = items
        self.problem: str | None = None
        try:
            self.work = worker(*arguments)
        except _SENTENCES as error:
            self.problem = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self.problem is not None:
            return {"answer": _Answer(problem=self.problem)}
        try:
            return {"answer": _Answer(self.work(self.items[row["index"]]))}
        except _SENTENCES as error:
            return {"answer": _Answer(problem=str(error))}
