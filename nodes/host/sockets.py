"""Whether what comes in at a node's sockets is of their types.

Core checks the types of links. A workflow may also hold a plain value where a link belongs, and a socket that matches
its type to another's takes links of any: both reach the node as they are.

Relies on: ``io_type``, ``optional`` and MatchType's ``template.allowed_types`` of the inputs of the V3 node API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from comfy_api.latest import Types, io
from torch import Tensor

#: What JSON can hold, so what a workflow can give in place of a link.
_PLAIN = (str, int, float, bool, list, dict, type(None))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _is_latent(value: Any) -> bool:
    return isinstance(value, dict) and hasattr(value.get("samples"), "is_nested")


def _is_geometry(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(part, Tensor) for part in value.values())


def _is_conditioning(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(part, list | tuple) and _is_tensor(part[0]) for part in value if part
    )


def _is_object(value: Any) -> bool:
    return not isinstance(value, _PLAIN)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "IMAGE": _is_tensor,
    "MASK": _is_tensor,
    "LATENT": _is_latent,
    "CONDITIONING": _is_conditioning,
    "MOGE_GEOMETRY": _is_geometry,
    "DA3_GEOMETRY": _is_geometry,
    "VIDEO": lambda value: hasattr(value, "get_components"),
    "MODEL": _is_object,
    "VAE": _is_object,
    "LOAD3D_CAMERA": lambda value: isinstance(value, dict),
    "FILE_3D_PLY": lambda value: isinstance(value, Types.File3D),
}


def check_sockets(inputs: Iterable[io.Input], given: Mapping[str, Any]) -> None:
    """Check the values of a node's sockets; widgets are core's to check.

    Raises:
        ValueError: a value is of another type than its socket, or a name is of no input.
    """
    inputs = list(inputs)
    if unknown := given.keys() - {one.id for one in inputs}:
        raise ValueError(f"it has no input called {min(unknown)[:100]!r}; take it out of the workflow.")
    for socket in inputs:
        if isinstance(socket, io.MatchType.Input):
            kinds = [kind.io_type for kind in socket.template.allowed_types]
        else:
            kinds = socket.get_io_type().split(",")
        value = given.get(socket.id)
        if not all(kind in _CHECKS for kind in kinds) or (value is None and socket.optional):
            continue
        if not any(_CHECKS[kind](value) for kind in kinds):
            raise ValueError(f"{socket.id} is no {' or '.join(kinds)}; connect an output of that type to it.")
