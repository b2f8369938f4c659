"""From settings to a finished output folder."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ..kernels import pinned
from ..kernels.versions import versions as kernel_versions
from ..mforce_core.device import device_name
from ..mforce_core.inputs import read_given
from ..mforce_core.parts import Parts, find_parts
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.resolving import resolve
from ..mforce_core.results.contact_sheet import stack
from ..mforce_core.results.folder import output_folder
from ..mforce_core.results.provenance import identify, versions
from ..mforce_core.results.writing import check_writers
from ..mforce_core.rollout_settings import fitted
from ..mforce_core.settings import Settings
from ..mforce_core.text_file import read_text
from .progress import messages, progress_bar, say


def prepare(settings: Settings) -> tuple[Settings, Parts]:
    """Find the model and fill the settings in; nothing is loaded yet."""
    parts = find_parts(settings.model, settings.text_encoder, settings.vae)
    return resolve(settings, parts), parts


def made_for_few_steps(model: str, text_encoder: str | None, vae: str | None) -> bool:
    """Whether a model says so; the arguments are as in `Settings`."""
    return find_parts(model, text_encoder, vae).header().config.distilled is not None


def fit_to_model(settings: Settings, given: Collection[str]) -> Settings:
    """Settings with what the model asks for where the person did not; ``given`` names what was.

    Raises:
        ValueError: a guidance scale for a model that takes none.
    """
    header = find_parts(settings.model, settings.text_encoder, settings.vae).header()
    if settings.guidance is not None and not header.architecture.use_guidance_embed:
        raise ValueError("This model embeds no guidance scale: leave `guidance` out; `cfg` is another guidance.")
    return fitted(settings, header.config.distilled, given)


def generate_folder(
    jobs: Sequence[Settings],
    parts: Parts,
    output: Path,
    *,
    overwrite: bool = False,
    pipeline: Pipeline | None = None,
) -> Path:
    """Run every job (resolved settings that share a model) into one folder.

    One job fills ``output`` itself; several get ``output/000``, ``001``... and a sheet of all in ``output``.
    The folder appears when everything in it is finished.
    """
    check_writers()
    with output_folder(output, overwrite=overwrite) as work:
        givens = [read_given(job) for job in jobs]
        for note in dict.fromkeys(note for given in givens for note in given.notes):
            say(note)
        if pipeline is None:
            pipeline = load_pipeline(jobs, parts)
        for number, (job, given) in enumerate(zip(jobs, givens, strict=True)):
            folder = work if len(jobs) == 1 else work / f"{number:03d}"
            folder.mkdir(exist_ok=True)
            label = job.mode if len(jobs) == 1 else f"{job.mode} {number + 1}/{len(jobs)}"
            with progress_bar(label) as advance:
                (result,) = pipeline.generate([job], [given], advance)
            result.write(folder)
        if len(jobs) > 1:
            stack([Image.open(sheet) for sheet in sorted(work.glob("*/sheet.png"))]).save(work / "sheet.png")
    return output


def load_pipeline(jobs: Sequence[Settings], parts: Parts) -> Pipeline:
    """Load the model for these jobs."""
    with messages.status("Loading the model"):
        return Pipeline(jobs[0], parts, [job.prompt for job in jobs], say)


def read_metadata(path: Path) -> dict[str, Any]:
    """A ``metadata.json`` (or the folder that holds it).

    Raises:
        ValueError: not a file of ours.
    """
    file = path / "metadata.json" if path.is_dir() else path
    try:
        metadata = json.loads(read_text(file))
    except FileNotFoundError:
        raise ValueError(f"{file} does not exist: give the metadata.json of a result.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not readable JSON ({str(error)[:120]}).") from None
    if not isinstance(metadata, dict) or metadata.get("format") != 1 or not isinstance(metadata.get("settings"), dict):
        raise ValueError(f"{file} is not the metadata of a result of this version of mforce.")
    for name in ("input_files", "sha256", "versions", "kernels"):
        if not isinstance(metadata.setdefault(name, {}), dict):
            raise ValueError(f"{file} holds something else than names and values under {name}.")
    if not isinstance(metadata["kernels"].get("versions", {}), dict):
        raise ValueError(f"{file} holds something else than names and values under the versions of its kernels.")
    return metadata


def check_inputs(metadata: dict[str, Any], settings: Settings) -> None:
    """Refuse to repeat a result from an input file that is gone or has changed."""
    for role, path in settings.files().items():
        if not Path(path).is_file():
            option = f"--{role.replace('_', '-')}"
            raise ValueError(f"The {role} file {path} of this result is gone: say where it is with {option}.")
        if metadata["input_files"].get(role) != identify(Path(path)):
            raise ValueError(f"The {role} file {path} is not the one that this result was made from.")


def pinning(metadata: dict[str, Any], settings: Settings) -> AbstractContextManager[None]:
    """Run in it what a result was made with, where that is here; where it is not, say that the bits may differ."""
    kernels, device = metadata["kernels"], device_name(torch.device(settings.device))
    if not kernels or "device" not in metadata:
        say("The metadata does not say on what the result was made: equal bits cannot be promised.")
        return nullcontext()
    here = {"device": device, **versions(), **kernel_versions()}
    there = {"device": metadata["device"], **metadata["versions"], **kernels.get("versions", {})}
    changed = [f"{name} {there.get(name)} (here {here.get(name)})" for name in there if there[name] != here.get(name)]
    if changed:
        say(f"Made with {', '.join(changed)}: equal bits are promised for the same device, versions and kernels only.")
    if there["device"] != device or kernels.get("versions") != kernel_versions():
        return nullcontext()
    return pinned(kernels)


def differences(metadata: dict[str, Any], folder: Path) -> list[str]:
    """Names of the files in ``folder`` that differ from those that ``metadata`` describes."""
    again = read_metadata(folder)
    names = sorted(set(metadata["sha256"]) | set(again["sha256"]))
    return [name for name in names if metadata["sha256"].get(name) != again["sha256"].get(name)]


def numbered(settings: Settings, count: int) -> list[Settings]:
    """The same job ``count`` times with consecutive seeds, so that each can be repeated alone."""
    if count < 1:
        raise ValueError(f"--count must be at least 1, got {count}.")
    return [replace(settings, seed=settings.seed + i) for i in range(count)]
