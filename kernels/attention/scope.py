"""What the caller asks for: a back end, and the attention function of a host that has one of its own."""

import os
import threading
from collections.abc import Callable
from types import TracebackType

from torch import Tensor

from ..availability import log_once
from .backends import NAMES

ENVIRONMENT_VARIABLE = "MFORCE_ATTENTION"

#: host(q, k, v) on (B, H, L, D), possibly strided, to (B, L, H * D).
HostAttention = Callable[[Tensor, Tensor, Tensor], Tensor]


class _Scope(threading.local):
    def __init__(self) -> None:
        self.backend: str | None = None
        self.host: HostAttention | None = None


scope = _Scope()


def check_name(name: str) -> str:
    """Raises ValueError unless ``name`` is ``auto`` or a back end's."""
    if name != "auto" and name not in NAMES:
        raise ValueError(f"attention has no back end {name!r}: choose one of {', '.join(('auto', *NAMES))}")
    return name


def _from_environment() -> str:
    name = os.environ.get(ENVIRONMENT_VARIABLE, "auto").strip().lower() or "auto"
    if name == "auto" or name in NAMES:
        return name
    log_once(f"{ENVIRONMENT_VARIABLE} is {name!r}, which is none of {', '.join(('auto', *NAMES))}: it is ignored.")
    return "auto"


environment_choice = _from_environment()


class use_attention:
    """Ask for a back end, and offer a host's function, inside the ``with`` block and in this thread only.

    Args:
        backend: a back end's name or ``auto``; None leaves it to the environment variable.
        host: called as ``host(q, k, v)`` with (B, H, L, D) tensors, returns (B, L, H * D); it takes the place of the
            automatic choice where no gradient is needed. A back end asked for by name goes before it.

    Raises:
        ValueError: no back end has this name.
    """

    def __init__(self, backend: str | None = None, host: HostAttention | None = None) -> None:
        self.backend = None if backend is None else check_name(backend)
        self.host = host

    def __enter__(self) -> None:
        self.before = scope.backend, scope.host
        scope.backend, scope.host = self.backend, self.host

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        scope.backend, scope.host = self.before
