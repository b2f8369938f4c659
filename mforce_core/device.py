"""What this machine is, and whether it can do what is asked of it, said before anything is loaded."""

from __future__ import annotations

import platform
import re
import textwrap

import torch

from .reasons import reason_of


def choose_device(name: str) -> str:
    """The name of a device that works here; "auto" is a GPU where there is one.

    Raises:
        ValueError: PyTorch cannot use a device of this name.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(name)
    return name


def check_device(device: str) -> None:
    """Raises ValueError where PyTorch cannot use a device of this name."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = re.split(r"[.:;]\s|\n", str(error).strip())[0].rstrip(".")
        reason = textwrap.shorten(first, 120, placeholder=" ...")  # some reasons fill a page
        raise ValueError(f"The device {device!r} cannot be used ({reason}): use `device` cpu.") from None


def check_compiler(device: str) -> None:
    """Compile something small: what is missing shows here and not in the middle of a picture."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(2, device=device))
    except Exception as error:  # compilers and drivers each have their own
        raise ValueError(
            f"torch.compile does not work on this machine ({reason_of(error)}): leave `compile` out."
        ) from None


def device_name(device: torch.device) -> str:
    """The name of the GPU or CPU that a device is."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_name() if device.type == "cpu" else str(device)


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
