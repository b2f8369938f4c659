"""What is in a checkpoint, from its header alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from ..mforce_core.encoders.autoencoder_files import DECODER_FILE, ENCODER_FILE, ONE_FILE_NAMES
from ..mforce_core.encoders.words import WORDS_FILE
from ..mforce_core.model.config import VARIANTS, Architecture, ConfigError
from ..mforce_core.weights.bundle import describe_parts
from ..mforce_core.weights.header import CheckpointHeader, check_tensors, read_header
from ..mforce_core.weights.parts import BUILT_IN_LICENSE, is_built_in, model_path
from .memory_table import memory_of

#: FLUX.2-klein sizes by hidden size.
_KLEIN = {3072: "klein-4B", 4096: "klein-9B"}

_LICENSES = {
    "release": "The released Modality Forcing weights are CC BY-NC 4.0: not for commercial use.",
    "klein-4B": "FLUX.2-klein-4B weights are Apache-2.0; what you train from them is yours.",
    "klein-9B": "FLUX.2-klein-9B is under the FLUX non-commercial license; so is what is trained from it.",
    "nano": f"The built-in weights are under this package's license, {BUILT_IN_LICENSE}.",
    "other": "The file does not say; ask where it came from.",
}


def describe_checkpoint(path: Path, *, memory: bool = False) -> dict[str, Any]:
    """Architecture, size and problems of a checkpoint; no weight is read.

    Returns:
        JSON-able: ``kind``, ``variant``, ``parameters``, ``tensors``, ``bytes``, ``dtypes``, ``quantized`` (the
        number of layers by format), ``memory`` (see `memory_of`; None unless asked for), ``prefix``,
        ``architecture`` (None where it cannot be told), ``schedule``, ``distilled`` (steps, path, sampler, i2d_steps
        that a model of few steps is made for, else None), ``other_tensors``, ``parts`` (text
        encoders and autoencoder inside the file, see `PartSummary`), ``beside`` (the other parts found in the
        folder), ``license``, ``problems`` (sentences, empty when the checkpoint can be used).

    Raises:
        ValueError: nothing there, a truncated or foreign file.
    """
    path = model_path(str(path))
    header = read_header(path)
    problems, architecture = [], None
    try:
        architecture = header.architecture
        problems = check_tensors(header.shapes, architecture)
    except ConfigError as error:
        problems.append(str(error))
    kind = "nano" if is_built_in(path) else _kind(header, architecture)
    declared = header.config.license
    return {
        "path": str(path),
        "kind": kind,
        "variant": header.config.variant or _variant(architecture),
        "parameters": sum(prod(shape) for shape in header.shapes.values()),
        "tensors": len(header.shapes),
        "bytes": sum(file.stat().st_size for file in (*header.files, *filter(None, [header.update]))),
        "dtypes": dict(Counter(header.dtypes.values()).most_common()),
        "quantized": dict(Counter(settings["format"] for settings in header.quantized.values())),
        "memory": memory_of(architecture) if memory and architecture is not None else None,
        "prefix": header.prefix,
        "architecture": None if architecture is None else architecture.to_dict(),
        "schedule": vars(header.config.schedule),
        "distilled": None if header.config.distilled is None else header.config.distilled.to_dict(),
        "other_tensors": len(header.others),
        "parts": [part._asdict() for part in describe_parts(path)] if header.others else [],
        "beside": _beside(path),
        "license": _LICENSES[kind] if declared is None else f"The weights say that they are under {declared[:80]}.",
        "problems": problems,
    }


def _variant(architecture: Architecture | None) -> str | None:
    return next((name for name, sizes in VARIANTS.items() if sizes == architecture), None)


def _kind(header: CheckpointHeader, architecture: Architecture | None) -> str:
    if header.config.variant in VARIANTS or _variant(architecture) is not None:
        return "release"
    if architecture is None or architecture.hidden_size not in _KLEIN:
        return "other"
    base = _KLEIN[architecture.hidden_size]
    context = {"klein-4B": 7680, "klein-9B": 12288}[base]
    return base if replace(architecture, context_in_dim=context) == architecture else "other"


def _beside(path: Path) -> list[str]:
    if not path.is_dir():
        return []
    names = (WORDS_FILE, ENCODER_FILE, DECODER_FILE, *ONE_FILE_NAMES)
    return [name for name in names if (path / name).exists()]
