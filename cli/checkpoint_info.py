"""What is in a checkpoint, from its header alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from ..mforce_core.encoders.autoencoder_files import DECODER_FILE, ENCODER_FILE, ONE_FILE_NAMES
from ..mforce_core.encoders.words import WORDS_FILE
from ..mforce_core.model.config import VARIANTS, Architecture, ConfigError, Distilled, Schedule
from ..mforce_core.parts import BUILT_IN_LICENSE, is_built_in, model_path
from ..mforce_core.settings import ALL_BUILT_IN
from ..mforce_core.weights.bundle import PartSummary, describe_parts
from ..mforce_core.weights.header import CheckpointHeader, check_tensors, read_header
from ..mforce_core.weights.named_parts import Part, named_part, portable
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


@dataclass(frozen=True)
class CheckpointSummary:
    """Architecture, size and problems of a checkpoint.

    Attributes:
        path: of the file or folder.
        kind: a key of the licenses above.
        variant: name of the released architecture that it has, if any.
        parameters, tensors: of the transformer.
        bytes: of its files.
        dtypes: number of tensors by dtype.
        quantized: number of layers by format.
        memory: see `memory_of`; None where it was not asked for.
        prefix: of the tensors' names.
        architecture: None where it cannot be told.
        schedule: of its timesteps.
        distilled: how a model of few steps is to be run.
        other_tensors: the number of those that are not of the transformer.
        parts: text encoders and autoencoder inside the file.
        beside: names of the other parts found in the folder.
        named: what the folder's ``config.json`` names, by its key: the base that the weights are an update of, the text
            encoder, the autoencoder.
        update: name of the file that is added to the base, which all counts above are of; None where there is no base.
        license: a sentence.
        problems: sentences; none when the checkpoint can be used.
    """

    path: str
    kind: str
    variant: str | None
    parameters: int
    tensors: int
    bytes: int
    dtypes: dict[str, int]
    quantized: dict[str, int]
    memory: dict[str, Any] | None
    prefix: str
    architecture: Architecture | None
    schedule: Schedule
    distilled: Distilled | None
    other_tensors: int
    parts: list[PartSummary]
    beside: list[str]
    named: dict[str, str]
    update: str | None
    license: str
    problems: list[str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self) | {
            "architecture": None if self.architecture is None else self.architecture.to_dict(),
            "schedule": vars(self.schedule),
            "distilled": None if self.distilled is None else self.distilled.to_dict(),
            "parts": [vars(part) for part in self.parts],
        }


def describe_checkpoint(path: Path, *, memory: bool = False) -> CheckpointSummary:
    """Describe a checkpoint; no weight is read.

    Args:
        path: file or folder, or the name of a built-in model.
        memory: also what its weights take.

    Raises:
        ValueError: nothing there, a truncated or foreign file.
    """
    path = model_path(str(path))
    if not path.exists():
        names = ", ".join(ALL_BUILT_IN)
        raise ValueError(f"{path} does not exist: give {names}, a release folder or a .safetensors file")
    header = read_header(path)
    problems, architecture = [], None
    try:
        architecture = header.architecture
        problems = check_tensors(header.shapes, architecture)
    except ConfigError as error:
        problems.append(str(error))
    kind = "nano" if is_built_in(path) else _kind(header, architecture)
    declared = header.config.license
    return CheckpointSummary(
        path=str(path),
        kind=kind,
        variant=header.config.variant or _variant(architecture),
        parameters=sum(prod(shape) for shape in header.shapes.values()),
        tensors=len(header.shapes),
        bytes=sum(file.stat().st_size for file in (*header.files, *filter(None, [header.update]))),
        dtypes=dict(Counter(header.dtypes.values()).most_common()),
        quantized=dict(Counter(settings["format"] for settings in header.quantized.values())),
        memory=memory_of(architecture) if memory and architecture is not None else None,
        prefix=header.prefix,
        architecture=architecture,
        schedule=header.config.schedule,
        distilled=header.config.distilled,
        other_tensors=len(header.others),
        parts=describe_parts(path) if header.others else [],
        beside=_beside(path),
        named=_named(path),
        update=None if header.update is None else header.update.name,
        license=_LICENSES[kind] if declared is None else f"The weights say that they are under {declared[:80]}.",
        problems=problems,
    )


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


def _named(path: Path) -> dict[str, str]:
    parts: tuple[Part, ...] = ("base", "text_encoder", "vae")
    found = {part: named_part(path, part) for part in parts}
    return {part: portable(file) for part, file in found.items() if file is not None}


def _beside(path: Path) -> list[str]:
    if not path.is_dir():
        return []
    names = (WORDS_FILE, ENCODER_FILE, DECODER_FILE, *ONE_FILE_NAMES)
    return [name for name in names if (path / name).exists()]
