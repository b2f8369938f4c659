"""Ctrl-C and SIGTERM, which end a run after its step and with a checkpoint."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """The signal that asked this process to stop, if any."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def _request(self, number: int, frame: object) -> None:
        self.signal = number

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals; afterwards they do again what they did before."""
        before = {number: signal.signal(number, self._request) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Stopped(Exception):
    """A signal ended something that consists of several runs."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.signal = number


def exit_code(number: int) -> int:
    """What a shell reports for a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + number
