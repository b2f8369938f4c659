"""Whether Triton kernels can run on a device, and why not where they cannot.

Asked once a device: importing Triton, then compiling and launching one trivial kernel, which is what fails on a machine
whose driver, compiler or Triton build do not fit each other. Whoever falls back says so once, through :func:`log_once`.
"""

import functools
import logging
import os
from collections.abc import Callable

import torch

#: Oldest release whose language the kernels are written in.
MIN_TRITON = (3, 0)

#: Turing: the first NVIDIA generation that Triton's tensor-core paths support.
MIN_CAPABILITY = (7, 5)


def constant_when_traced(function: Callable) -> Callable:
    """What ``torch.compiler.assume_constant_result`` does, which imports the whole compiler to do it: a second."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def interpreted() -> bool:
    """Whether Triton runs kernels in its interpreter, which takes CPU tensors (``TRITON_INTERPRET=1``)."""
    return os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "True")


def triton_problem(device: torch.device) -> str | None:
    """Why Triton kernels cannot run on ``device``, as a phrase; None where they can."""
    if torch.version.hip is None and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < MIN_CAPABILITY:
            wanted, found = (".".join(map(str, version)) for version in (MIN_CAPABILITY, capability))
            return f"the GPU has compute capability {found}, Triton kernels need {wanted}"
    index = device.index
    if device.type == "cuda" and index is None:
        index = torch.cuda.current_device()
    return _probe(device.type, index)


@functools.cache
def _probe(device_type: str, index: int | None) -> str | None:
    if device_type != "cuda" and not (device_type == "cpu" and interpreted()):
        return f"Triton has no code for {device_type} tensors"
    try:
        import triton
    except Exception as error:  # a broken installation raises more than ImportError
        return f"Triton cannot be imported ({type(error).__name__}: {error})"
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < MIN_TRITON:
        return f"Triton {triton.__version__} is older than {'.'.join(map(str, MIN_TRITON))}"
    try:
        from .triton_probe import launch

        launch(torch.device(device_type if index is None else f"{device_type}:{index}"))
    except Exception as error:  # compiler, driver and launcher each have their own
        first_line = (str(error).strip().splitlines() or [""])[0]
        return f"a trial Triton kernel failed ({type(error).__name__}: {first_line})"
    return None


@functools.cache
def log_once(message: str) -> None:
    """Log a line the first time that it is given."""
    logging.getLogger("mforce.kernels").info(message)
