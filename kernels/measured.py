"""The fastest back end of each kind and size of call on one GPU, measured once and kept."""

import functools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

from .cache import ChoiceFile, cache_folder
from .registry import OPS, Call, first_line, log_once
from .trials import median_seconds
from .versions import versions


class MeasuredChoice:
    """The fastest back end of each bucket of calls on one GPU, measured at the first call of each.

    Args:
        environment: what measurements are valid for: the device and the versions.
        file: where they are kept.
        timer: as :func:`.trials.median_seconds`.
    """

    def __init__(
        self,
        environment: str,
        file: ChoiceFile,
        timer: Callable[[Call, Sequence[str]], dict[str, float]] = median_seconds,
    ) -> None:
        self.environment, self.file, self.timer = environment, file, timer
        self.entries: dict[str, dict[str, Any]] | None = None
        self.lock = threading.RLock()

    def known(self, call: Call) -> str | None:
        """The choice of an earlier measurement, in this process or another."""
        entry = self._entries().get(call.bucket) if call.sizes else None
        return None if entry is None else entry["choice"]

    def known_for_any_size(self, call: Call) -> str | None:
        """The choice for the largest sizes measured of this kind of call: a compiled graph may serve all sizes."""
        alike = {bucket: entry for bucket, entry in self._entries().items() if bucket.startswith(call.kind + ":")}
        return alike[max(alike, key=_bucket_size)]["choice"] if alike else None

    def best(self, call: Call, names: Sequence[str]) -> str:
        """The fastest of ``names``, measured now if it is not known; another thread that asks meanwhile waits."""
        choice = self.known(call)
        if choice in names:
            return str(choice)
        with self.lock:
            choice = self.known(call)
            if choice in names:
                return str(choice)
            entry = self._measure(call, names)
            self.entries = {**self._entries(), call.bucket: entry}
            if entry["seconds"]:
                self.file.add(self.environment, call.bucket, entry)
            return str(entry["choice"])

    def measured(self) -> dict[str, dict[str, Any]]:
        """Every bucket with its choice and the median seconds of each candidate."""
        return dict(self._entries())

    def _entries(self) -> dict[str, dict[str, Any]]:
        with self.lock:
            if self.entries is None:
                self.entries = self.file.read(self.environment)
            return self.entries

    def _measure(self, call: Call, names: Sequence[str]) -> dict[str, Any]:
        default = OPS[call.op].default if OPS[call.op].default in names else names[0]
        try:
            times = self.timer(call, names)
        except RuntimeError as error:  # out of memory, mostly: nothing is kept, the next start tries again
            log_once(f"{call.bucket}: back ends could not be measured ({first_line(error)}), {default} it is.")
            times = {}
        return {"choice": min(times, key=times.__getitem__) if times else default, "seconds": times}


def _bucket_size(bucket: str) -> int:
    """Product of a bucket's sizes."""
    return math.prod(map(int, bucket.rpartition(": ")[2].split(" x ")))


@functools.cache
def measured_choice(device: torch.device) -> MeasuredChoice:
    """The choices of a GPU."""
    parts = [torch.cuda.get_device_name(device), *(f"{name} {found}" for name, found in versions().items())]
    return MeasuredChoice(", ".join(parts), ChoiceFile(cache_folder() / "kernels.json"))
