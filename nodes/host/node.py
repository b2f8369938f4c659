"""The base of the pack's nodes: what ComfyUI reports when one of them fails names the node.

Relies on: ``io.ComfyNode`` of the V3 node API; ``comfy_api.internal.lock_class``, which copies a node's class for every
run; and ``execution.py``, which shows the text of an exception as it is.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from .sockets import check_sockets

_TOO_LARGE = "there is not enough memory for this; make the pictures, their number or the density smaller."


class Node(io.ComfyNode):
    """A ComfyUI node whose ValueErrors start with its display name: "MF Tilt: the model is not ...".

    What does not fit into the computer's memory is such an error too.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # The copies that ComfyUI makes of a class hold the wrapped method already, and cannot be changed.
        execute = vars(cls).get("execute")
        if execute is not None and not hasattr(execute.__func__, "__wrapped__"):
            cls.execute = classmethod(_names_its_node(execute.__func__))


def _names_its_node(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    names = list(inspect.signature(execute).parameters)[1:]

    @functools.wraps(execute)
    def run(cls: type[Node], *args: Any, **kwargs: Any) -> io.NodeOutput:
        schema = cls.define_schema()
        name = schema.display_name.partition(" (")[0]
        try:
            check_sockets(schema.inputs, dict(zip(names, args, strict=False)) | kwargs)
            return execute(cls, *args, **kwargs)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "DefaultCPUAllocator" not in str(error):
                raise  # of a GPU too: core makes room there
            raise ValueError(f"{name}: {_TOO_LARGE}") from error

    return run
