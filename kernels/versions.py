"""Versions of the libraries that kernels come from."""

import functools
from importlib.metadata import PackageNotFoundError, version

_DISTRIBUTIONS = ("torch", "triton", "xformers", "comfy-kitchen")

#: Builds of Triton under other names.
_TRITON_BUILDS = ("triton", "pytorch-triton", "pytorch-triton-rocm", "triton-windows")


@functools.cache
def versions() -> dict[str, str]:
    """Library -> version, without importing any; ``none`` where it is not installed."""
    return {name: _version(_TRITON_BUILDS if name == "triton" else (name,)) for name in _DISTRIBUTIONS}


def _version(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "none"
