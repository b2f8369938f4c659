"""The same work on every shard: here one after the other, or with Ray Data on many processes and machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .extras import need
from .shards import Shard

Result = TypeVar("Result")


def map_shards(
    worker: Callable[..., Callable[[Shard], Result]],
    arguments: tuple[Any, ...],
    shards: list[Shard],
    *,
    ray_workers: int = 0,
    gpus_per_worker: float = 0,
) -> Iterator[Result]:
    """``worker(*arguments)`` called with each shard; results in the order in which they are done.

    Args:
        worker: a class whose instances take a shard; made once a process.
        ray_workers: 0 works in this process; else that many Ray actors, on the cluster that Ray is connected to or
            started on this machine.
        gpus_per_worker: share of a GPU that Ray sets aside for an actor.

    Raises:
        ModuleNotFoundError: Ray is not installed.
    """
    if ray_workers == 0:
        work = worker(*arguments)
        for shard in shards:
            yield work(shard)
        return
    data = need("ray.data", "--ray", "ray")
    # A row a block: every shard is handed to the next worker that is free.
    rows = data.from_items([{"index": index} for index in range(len(shards))], override_num_blocks=len(shards))
    done = rows.map(
        _Actor,
        fn_constructor_args=(worker, arguments, shards),
        compute=data.ActorPoolStrategy(size=ray_workers),
        num_gpus=gpus_per_worker,
    )
    for row in done.iter_rows():
        yield row["result"]


class _Actor:
    """A worker as Ray Data wants it: rows in, rows out."""

    def __init__(
        self, worker: Callable[..., Callable[[Shard], Any]], arguments: tuple[Any, ...], shards: list[Shard]
    ) -> None:
        self.work, self.shards = worker(*arguments), shards

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"result": self.work(self.shards[row["index"]])}
