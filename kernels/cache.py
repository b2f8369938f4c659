"""Measured choices, kept between runs in one JSON file of the user's cache folder."""

import json
import logging
import os
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

#: Raised when kernels change so much that old measurements say nothing.
_REVISION = 2

#: Seconds to wait for another process that writes; it takes milliseconds.
_PATIENCE = 10.0


def cache_folder() -> Path:
    """Where this user's caches belong on this operating system."""
    # The three folders that platformdirs would give; ComfyUI does not bring that library.
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = str(Path.home() / "Library" / "Caches")
    else:
        root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "mforce"


class ChoiceFile:
    """``{environment: {bucket: {"choice": name, "seconds": {name: median}}}}`` on disk.

    A file that cannot be read counts as empty, one that cannot be written is given up; either is logged once. Processes
    that add to it at the same time wait for each other at a second file beside it, ``.lock`` at the end of its name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._complained = False

    def read(self, environment: str) -> dict[str, dict[str, Any]]:
        """Everything measured in ``environment``."""
        found = self._environments().get(environment, {})
        if not isinstance(found, dict):
            return {}
        return {bucket: entry for bucket, entry in found.items() if _is_entry(entry)}

    def add(self, environment: str, bucket: str, entry: dict[str, Any]) -> None:
        """Keep one measurement, beside what other processes have written meanwhile."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                # A disk without locks: the worst is a measurement that is lost and made again.
                with suppress(OSError, NotImplementedError):
                    stack.enter_context(FileLock(self.path.with_name(self.path.name + ".lock"), timeout=_PATIENCE))
                environments = self._environments()
                measured = environments.get(environment)
                environments[environment] = {**(measured if isinstance(measured, dict) else {}), bucket: entry}
                self._write(environments)
        except OSError as error:
            self._complain(f"The measurements of kernels cannot be kept in {self.path} ({error}).")

    def _write(self, environments: dict[str, Any]) -> None:
        """Replace the file, which readers see as it was or as it is, never half of it."""
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"revision": _REVISION, "environments": environments}, file, indent=1)
            os.replace(temporary, self.path)
        except OSError:
            os.unlink(temporary)
            raise

    def _environments(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["revision"] != _REVISION:
                return {}
            return dict(content["environments"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._complain(f"The measurements of kernels in {self.path} are unreadable and ignored ({error!r}).")
            return {}

    def _complain(self, message: str) -> None:
        if not self._complained:
            self._complained = True
            logging.getLogger("mforce.kernels").info(message)


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("choice"), str)
