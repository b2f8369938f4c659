"""What settings leave to the model and the machine."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch

from ..kernels import current_request
from .depth.edges import scaled_edge_threshold
from .device import choose_device
from .parts import Parts
from .rollout_settings import check_path
from .settings import Settings

#: Models up to this size run in float32 on a CPU; it is as fast there and exact.
_SMALL_PARAMETERS = 10**9


def resolve(settings: Settings, parts: Parts) -> Settings:
    """Fill in what was left to the model and the machine: size, device, dtype, threads and edge threshold.

    Raises:
        ValueError: the checkpoint is damaged or foreign, the device is not there, or ``MFORCE_KERNELS`` names what does
            not exist.
    """
    current_request()  # raises before anything is loaded
    check_path(settings)
    header = parts.header()
    device, dtype = choose_device(settings.device), settings.dtype
    if dtype == "auto":
        small = device == "cpu" and sum(map(prod, header.shapes.values())) <= _SMALL_PARAMETERS
        stored_exactly = set(header.dtypes.values()) == {"F32"}
        dtype = "float32" if small or stored_exactly else "bfloat16"
    size = settings.size or parts.trained_size()
    return replace(
        settings,
        device=device,
        dtype=dtype,
        size=size,
        edge_threshold=settings.edge_threshold or scaled_edge_threshold(max(size)),
        threads=settings.threads or torch.get_num_threads(),
    )
