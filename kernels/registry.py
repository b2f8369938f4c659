"""Every operation, every back end of it, what each back end takes, and how often each has run.

An operation (:class:`Op`) is a contract; :class:`BackEnd` is one implementation of it. Operations and back ends know
this module; it knows none of them. Who runs is decided in :mod:`.choice`.
"""

import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

FLOATS = frozenset({torch.float32, torch.bfloat16, torch.float16})


class BackEndUnavailable(ValueError):
    """A back end was asked for by name and cannot run: one sentence that says why."""

    def __init__(self, op: str, name: str, reason: str) -> None:
        super().__init__(f"{op} was asked to run on {name}, but {reason}.")


class Call(NamedTuple):
    """One call of an operation, without its values: what a choice of back end depends on."""

    op: str
    device: torch.device
    dtype: torch.dtype
    #: Channels of a row, or features of a head.
    width: int
    #: Whether autograd records it.
    gradient: bool
    #: The operation's other sizes, in the order of ``Op.sizes``; empty where a compiler traces and sizes are symbols.
    sizes: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """Everything but the sizes."""
        name = f"{self.op} {str(self.dtype).removeprefix('torch.')} {self.width}"
        return name + " with gradient" * self.gradient

    @property
    def bucket(self) -> str:
        """Calls that share a measurement: of one kind, sizes rounded up to powers of two."""
        return f"{self.kind}: {' x '.join(str(1 << max(size - 1, 0).bit_length()) for size in self.sizes)}"


@dataclass(frozen=True, eq=False)
class Op:
    """The contract of an operation: what every back end is given and what it returns.

    Args:
        name: in reports and specifications.
        tensors: axes of every tensor, inputs and outputs, by the name that it has in the public function.
        width: what :attr:`Call.width` counts.
        sizes: what :attr:`Call.sizes` counts, the batch first, which is also the first axis of the first tensor.
        draw: arguments of a back end's ``run`` for such a call, of random numbers; those that want a gradient say so.
        default: the candidate that serves an automatic call on a GPU until one was measured.
        yardstick: the back end that the results of others are held against.
        on_cpu: the automatic choice on a CPU, from the call and whether a compiler traces it; None for the reference.
    """

    name: str
    tensors: Mapping[str, str]
    width: str
    sizes: tuple[str, ...]
    draw: Callable[[Call], tuple[Any, ...]]
    default: str = "triton"
    yardstick: str = "reference"
    on_cpu: Callable[[Call, bool], str] | None = None


@dataclass(frozen=True, eq=False)
class Constraints:
    """What a back end takes, checked before it runs.

    Args:
        dtypes: None for any.
        devices: types of device; None for any.
        min_capability: of NVIDIA GPUs.
        max_width: of :attr:`Call.width`.
        max_batch: rows of the first axis; of a back end that is ``uniform``, since that is checked with its tensors.
        gradient: whether it can be differentiated.
        uniform: whether all tensors must share dtype and device, their last axes contiguous.
    """

    dtypes: frozenset[torch.dtype] | None = None
    devices: frozenset[str] | None = None
    min_capability: tuple[int, int] | None = None
    max_width: int | None = None
    max_batch: int | None = None
    gradient: bool = True
    uniform: bool = False

    def against(self, call: Call) -> str | None:
        """Why such a call does not fit, as a phrase; None where it does."""
        if self.dtypes is not None and call.dtype not in self.dtypes:
            return f"it has no {str(call.dtype).removeprefix('torch.')}"
        if self.max_width is not None and call.width > self.max_width:
            return f"{call.width} {OPS[call.op].width} are more than its {self.max_width}"
        if call.gradient and not self.gradient:
            return "it has no gradient"
        if self.devices is not None and call.device.type not in self.devices:
            return f"it does not run on {call.device.type} tensors"
        return self._against_gpu(call.device) or (self._against_batch(call.sizes[0]) if call.sizes else None)

    def _against_gpu(self, device: torch.device) -> str | None:
        if self.min_capability is None or device.type != "cuda" or torch.version.hip is not None:
            return None
        found = torch.cuda.get_device_capability(device)
        if found >= self.min_capability:
            return None
        has, needs = (".".join(map(str, capability)) for capability in (found, self.min_capability))
        return f"the GPU has compute capability {has}, it needs {needs}"

    def _against_batch(self, batch: int) -> str | None:
        if self.max_batch is None or batch <= self.max_batch:
            return None
        return f"a batch of {batch} is more than its {self.max_batch}"

    def against_tensors(self, tensors: Sequence[Tensor]) -> str | None:
        """Why these tensors do not fit, as a phrase; None where they do."""
        if not self.uniform:
            return None
        dtype, device = tensors[0].dtype, tensors[0].device
        for tensor in tensors:
            if tensor.dtype != dtype or tensor.device != device:
                return "its inputs differ in dtype or device"
            if tensor.stride(-1) != 1:
                return "the last axis of an input is not contiguous"
        return self._against_batch(tensors[0].shape[0])


@dataclass(frozen=True, eq=False)
class BackEnd:
    """One implementation of one operation.

    Args:
        name: as it is asked for; several operations may have a back end of the same name.
        op: the operation's name.
        run: the implementation; its arguments are those of the operation's reference.
        constraints: what it takes.
        missing: what the machine lacks to run it on a device, as a phrase; None where nothing is known to be missing.
        candidate: whether the automatic choice on a GPU considers it.
        needs_trial: whether only a small run tells if it works.
        counts_itself: whether ``run`` calls :func:`count` where it launches, compiled code included.
    """

    name: str
    op: str
    run: Callable[..., Any]
    constraints: Constraints = Constraints()
    missing: Callable[[torch.device], str | None] = lambda device: None
    candidate: bool = False
    needs_trial: bool = False
    counts_itself: bool = False

    def problem(self, call: Call) -> str | None:
        """What is known against it for such a call without running it, as a phrase; None: it may be tried."""
        return self.constraints.against(call) or self.missing(call.device)


OPS: dict[str, Op] = {}

#: Operation -> name -> back end, in the order of their registration.
BACK_ENDS: dict[str, dict[str, BackEnd]] = {}

#: (operation, back end) -> how often it ran outside compiled code; Triton's launches are counted inside it, too.
_launches: Counter[tuple[str, str]] = Counter()


def register_op(op: Op, reference: Callable[..., Any]) -> Op:
    """Enter an operation with its eager reference, a back end that takes everything."""
    OPS[op.name] = op
    BACK_ENDS[op.name] = {}
    register(BackEnd("reference", op.name, reference))
    return op


def register(*back_ends: BackEnd) -> None:
    """Enter back ends of operations that are registered already."""
    for back_end in back_ends:
        BACK_ENDS[back_end.op][back_end.name] = back_end


def candidate_names(op: str) -> list[str]:
    """Back ends of an operation that the automatic choice on a GPU considers, in the order of their registration."""
    return [name for name, back_end in BACK_ENDS[op].items() if back_end.candidate]


def count(op: str, back_end: str) -> None:
    """Note that ``back_end`` ran ``op`` once."""
    _launches[op, back_end] += 1


def launches() -> Counter[tuple[str, str]]:
    """How often each (operation, back end) ran in this process so far; the difference of two is what ran between."""
    return Counter(_launches)


@functools.cache
def log_once(message: str) -> None:
    """Log a line the first time that it is given."""
    logging.getLogger("mforce.kernels").info(message)


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [""])[0]


def names_of_all(ops: Iterable[str]) -> list[str]:
    """Every name that a back end of any of ``ops`` has."""
    return list(dict.fromkeys(name for op in ops for name in BACK_ENDS[op]))
