"""Which back ends are asked for: one rule for the environment, ``with`` blocks and recorded runs.

A specification is a comma-separated list, read from left to right; later items win::

    auto                          the choice is automatic (nothing asked for)
    reference                     plain PyTorch for every operation, attention included
    triton,attention=sdpa         Triton wherever it has the operation, PyTorch's attention
    attention=xformers            one operation, the others stay as they were

A name alone asks for a back end for every operation that has one of this name. What is asked for by name runs or raises
:class:`.BackEndUnavailable`; only the automatic choice falls back.
"""

import functools
import os
import threading
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType

from torch import Tensor

from .registry import BACK_ENDS, OPS, log_once, names_of_all
from .tracing import constant_when_traced

ENVIRONMENT_VARIABLE = "MFORCE_KERNELS"

#: Read until 1.0; ``MFORCE_KERNELS=attention=NAME`` says the same.
_OLD_ATTENTION_VARIABLE = "MFORCE_ATTENTION"

AUTO = "auto"

#: host(q, k, v) on (B, H, L, D), possibly strided, to (B, L, H * D).
HostAttention = Callable[[Tensor, Tensor, Tensor], Tensor]


class _Scope(threading.local):
    """What ``with`` blocks of this thread ask for."""

    def __init__(self) -> None:
        self.spec = ""
        self.host: HostAttention | None = None
        self.choices: Mapping[str, str] = {}


scope = _Scope()


@functools.cache
def parse(spec: str) -> dict[str, str]:
    """Every operation's back end, or ``auto``.

    Raises:
        ValueError: an unknown operation, or a back end that it does not have.
    """
    names = dict.fromkeys(OPS, AUTO)
    for item in filter(None, (part.strip().lower() for part in spec.split(","))):
        first, equals, name = (part.strip() for part in item.partition("="))
        if equals:
            if first not in OPS:
                raise ValueError(f"there is no operation {first!r}: choose one of {', '.join(OPS)}")
            names[first] = check_name(first, name)
        elif first == AUTO:
            names = dict.fromkeys(OPS, AUTO)
        elif first not in names_of_all(OPS):
            known = ", ".join((AUTO, *names_of_all(OPS)))
            raise ValueError(f"no operation has a back end {first!r}: choose one of {known}")
        else:
            names |= {op: first for op in OPS if first in BACK_ENDS[op]}
    return names


def check_name(op: str, name: str) -> str:
    """Raises ValueError unless ``name`` is ``auto`` or a back end of ``op``."""
    if name != AUTO and name not in BACK_ENDS[op]:
        known = ", ".join((AUTO, *BACK_ENDS[op]))
        raise ValueError(f"{op} has no back end {name!r}: choose one of {known}")
    return name


@functools.cache
def environment_spec() -> str:
    """What the environment asks for, read once.

    Raises:
        ValueError: it names what does not exist.
    """
    spec = os.environ.get(ENVIRONMENT_VARIABLE, AUTO)
    old = os.environ.get(_OLD_ATTENTION_VARIABLE)
    if old:
        log_once(f"{_OLD_ATTENTION_VARIABLE} is deprecated: use {ENVIRONMENT_VARIABLE}=attention={old}.")
        spec = f"attention={old},{spec}" if "attention=" in spec else f"{spec},attention={old}"
    try:
        parse(spec)
    except ValueError as error:
        raise ValueError(f"{ENVIRONMENT_VARIABLE}={spec}: {error}") from None
    return spec


@constant_when_traced
def asked_for(op: str, spec: str) -> str:
    """The name asked for by the environment, then by ``spec``; ``auto`` where none is.

    Raises:
        ValueError: either names what does not exist.
    """
    return _parsed(op, environment_spec(), spec)


@functools.cache
def _parsed(op: str, outer: str, inner: str) -> str:
    return parse(f"{outer},{inner}")[op]


def current_spec() -> str:
    """The environment's specification and that of this thread's ``with`` blocks."""
    return ",".join(filter(None, (environment_spec(), scope.spec)))


def current_request() -> Hashable:
    """All that this thread asks for: specification, a host's attention and pinned choices; a key for recorded work."""
    return current_spec(), scope.host, tuple(sorted(scope.choices.items()))


class back_end:
    """Ask for back ends inside the ``with`` block, in this thread only.

    Args:
        spec: see :mod:`.spec`; what it does not name stays as it was outside the block.

    Raises:
        ValueError: it names what does not exist.
    """

    def __init__(self, spec: str) -> None:
        parse(spec)
        self.spec = spec

    def __enter__(self) -> None:
        self.before = scope.spec
        scope.spec = f"{self.before},{self.spec}" if self.before else self.spec

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        scope.spec = self.before


class use_attention:
    """Ask for an attention back end, and offer a host's function, inside the ``with`` block, in this thread only.

    Args:
        backend: a back end's name or ``auto``; None leaves it as it was.
        host: called as ``host(q, k, v)`` with (B, H, L, D) tensors, returns (B, L, H * D); it takes the place of the
            automatic choice where no gradient is needed. A back end asked for by name goes before it.

    Raises:
        ValueError: no back end has this name.
    """

    def __init__(self, backend: str | None = None, host: HostAttention | None = None) -> None:
        self.spec = "" if backend is None else f"attention={check_name('attention', backend)}"
        self.host = host

    def __enter__(self) -> None:
        self.before = scope.spec, scope.host
        scope.spec, scope.host = f"{self.before[0]},{self.spec}", self.host

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        scope.spec, scope.host = self.before
