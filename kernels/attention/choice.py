"""Which back end serves a call: asked for, the host's, measured on this GPU, or a fixed rule."""

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from ..availability import log_once
from . import backends, measure
from .cache import ChoiceFile, cache_folder
from .call import Call, bucket_size

#: Where nothing was or can be measured.
DEFAULT = "sdpa"

#: Up to this many tokens a CPU forms the whole attention matrix where there are gradients: the backward pass of
#: PyTorch's own function takes longer than that, but the matrix grows with the square.
_WHOLE_MATRIX = {torch.bfloat16: 1024, torch.float32: 512}


def on_cpu(call: Call, compiled: bool = False) -> str:
    """A rule instead of a measurement: see docs/kernels/attention.md for the times behind it."""
    if call.backward or (compiled and call.dtype == torch.bfloat16):
        whole = call.query_length * call.key_length <= _WHOLE_MATRIX.get(call.dtype, 0) ** 2
        return "reference" if whole else DEFAULT
    return "reference" if call.dtype == torch.bfloat16 and call.query_length > 1 else DEFAULT


class MeasuredChoice:
    """The fastest back end of each bucket of calls on one GPU, measured at the first call of each.

    Args:
        environment: what measurements are valid for: the device and the versions.
        file: where they are kept.
        timer: as :func:`.measure.measure`.
        names: candidates, the one that all others must agree with first.
    """

    def __init__(
        self,
        environment: str,
        file: ChoiceFile,
        timer: Callable[[Call, Sequence[str]], dict[str, float]] = measure.measure,
        names: Sequence[str] = backends.CANDIDATES,
    ) -> None:
        self.environment, self.file, self.timer, self.names = environment, file, timer, tuple(names)
        self.entries: dict[str, dict[str, Any]] | None = None
        self.lock = threading.RLock()

    def known(self, call: Call) -> str | None:
        """The choice of an earlier measurement, in this process or another."""
        return self._choice(self._entries().get(call.bucket))

    def known_for_any_size(self, call: Call) -> str | None:
        """The choice for the longest sequences measured of this kind of call: a compiled graph may serve all sizes."""
        alike = {bucket: entry for bucket, entry in self._entries().items() if bucket.startswith(call.kind + ":")}
        return self._choice(alike[max(alike, key=bucket_size)]) if alike else None

    def best(self, call: Call) -> str:
        """The choice, measured now if there is none; a second thread that asks meanwhile waits for the first."""
        choice = self.known(call)
        if choice is not None:
            return choice
        with self.lock:
            choice = self.known(call)
            if choice is not None:
                return choice
            entry = self._measure(call)
            self.entries = {**self._entries(), call.bucket: entry}
            if entry["seconds"]:
                self.file.add(self.environment, call.bucket, entry)
            return str(entry["choice"])

    def measured(self) -> dict[str, dict[str, Any]]:
        """Every bucket with its choice and the median seconds of each candidate."""
        return dict(self._entries())

    def _choice(self, entry: dict[str, Any] | None) -> str | None:
        return entry["choice"] if entry is not None and entry["choice"] in self.names else None

    def _entries(self) -> dict[str, dict[str, Any]]:
        with self.lock:
            if self.entries is None:
                self.entries = self.file.read(self.environment)
            return self.entries

    def _measure(self, call: Call) -> dict[str, Any]:
        try:
            times = self.timer(call, self.names)
        except RuntimeError as error:  # out of memory, mostly: nothing is kept, the next start tries again
            first_line = (str(error).strip().splitlines() or [""])[0]
            log_once(f"attention ({call.bucket}): back ends could not be measured ({first_line}), {DEFAULT} it is.")
            return {"choice": DEFAULT, "seconds": {}}
        return {"choice": min(times, key=times.__getitem__), "seconds": times}


@functools.cache
def measured_choice(device: torch.device) -> MeasuredChoice:
    """The choices of a GPU."""
    name = torch.cuda.get_device_name(device)
    environment = f"{name}, torch {torch.__version__}, triton {_triton_version()}"
    return MeasuredChoice(environment, ChoiceFile(cache_folder() / "attention.json"))


def _triton_version() -> str:
    try:
        import triton

        return str(triton.__version__)
    except Exception:  # absent or broken: either way its kernels take no part
        return "none"


def requested(call: Call, asked: str, with_host: bool, passive: bool) -> str | None:
    """The back end that was asked for, or the host's, where it can serve ``call``; None: the choice is automatic.

    Args:
        asked: a back end's name, or ``auto``.
        with_host: a host offers its function.
        passive: nothing may run on the device now: a compiler traces, or a CUDA graph is captured.
    """
    if asked != "auto":
        against = _against_asked(asked, call, with_host, passive)
        if against is None:
            return asked
        log_once(f"attention: {asked} was asked for, but {against}; the choice is automatic.")
    return "host" if with_host and _against_host(call) is None else None


def automatic(call: Call, passive: bool) -> str:
    """The back end that a fixed rule or a measurement says."""
    if call.device.type == "cpu":
        return on_cpu(call)
    if call.device.type != "cuda":
        return DEFAULT
    choice = measured_choice(call.device)
    if not passive:
        return choice.best(call)
    return choice.known(call) or choice.known_for_any_size(call) or DEFAULT


def _against_asked(asked: str, call: Call, with_host: bool, passive: bool) -> str | None:
    if asked == "host":
        return _against_host(call) if with_host else "no host has set a function"
    return backends.problem(asked, call) if passive else measure.fails(asked, call)


def _against_host(call: Call) -> str | None:
    return "a host's function may have no gradient" if call.backward else None


class AttentionReport(NamedTuple):
    """What runs on a device and why."""

    #: Every back end: None where it works, else why it does not, as a phrase.
    back_ends: dict[str, str | None]
    #: The fixed rule or where choices come from, in one sentence.
    rule: str
    #: Measured buckets: the choice, and median seconds of every candidate.
    choices: dict[str, dict[str, Any]]


def attention_report(device: torch.device, dtype: torch.dtype = torch.bfloat16, features: int = 128) -> AttentionReport:
    """Tries every back end in inference and lists what was measured on this device before."""
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    call = Call(device, dtype, 1, 1, 1, 1, features, False)
    found = {name: measure.fails(name, call) for name in backends.NAMES if name != "host"}
    found["host"] = "only a program that runs the model sets one, such as ComfyUI"
    if device.type == "cuda":
        choice = measured_choice(device)
        return AttentionReport(found, "the fastest of those that work, measured once a shape", choice.measured())
    if device.type == "cpu":
        return AttentionReport(found, "reference for bfloat16 and short training sequences, else sdpa", {})
    return AttentionReport(found, f"always {DEFAULT}", {})
