"""What Linux says of the memory of a process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal


def status_bytes(name: Literal["VmRSS", "VmHWM"], process: int | Literal["self"] = "self") -> int:
    """Resident memory: that of now (``VmRSS``), or the most so far (``VmHWM``).

    ``ru_maxrss`` would count the parent process too.

    Raises:
        OSError: this system does not say.
    """
    found = re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    if found is None:
        raise OSError("this system does not say how much memory a process took")
    return 1024 * int(found[1])
