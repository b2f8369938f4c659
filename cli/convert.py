"""``mforce convert``: a release to single files for ComfyUI."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ..mforce_core.conversion.convert import (
    PRECISIONS,
    Precision,
    Progress,
    convert_autoencoder,
    convert_model,
    is_autoencoder,
)
from ..mforce_core.encoders.autoencoder_files import ENCODER_FILE
from ..mforce_core.parts import model_path
from ..mforce_core.weights.bundle import describe_parts
from .progress import progress_bar, say


def run_conversion(
    source: Path,
    out: Path,
    to: str | None,
    *,
    text_encoder: Path | None = None,
    vae: Path | None = None,
    bundle: bool = False,
    overwrite: bool,
) -> None:
    """Convert a transformer, or an autoencoder where ``source`` is one, and say what the file is for.

    Args:
        text_encoder, vae, bundle: parts for the same file, see `convert_model`.

    Raises:
        ValueError: see `convert_model` and `convert_autoencoder`.
    """
    precision = _precision(to)
    source = model_path(str(source))
    one_file = bundle or text_encoder is not None or vae is not None
    if is_autoencoder(source):
        if one_file:
            raise ValueError(f"{source} is an autoencoder: give the transformer as SOURCE and the autoencoder as --vae")
        convert_autoencoder(source, out, to=precision, overwrite=overwrite)
        say("Put it into ComfyUI's models/vae and open it with Load VAE.")
        return
    with ExitStack() as stack:
        bar: list[Progress] = []

        def advance(done: int, total: int) -> None:
            if not bar:  # appears once everything has been checked
                bar.append(stack.enter_context(progress_bar("Converting")))
            bar[0](done, total)

        header = convert_model(
            source,
            out,
            to=precision,
            text_encoder=text_encoder,
            vae=vae,
            bundle=bundle,
            overwrite=overwrite,
            progress=advance,
        )
    if one_file:
        written = describe_parts(out)
        say(f"In it beside the transformer: {', '.join(f'{part.part} ({part.name})' for part in written)}.")
    elif header.others:
        say(f"Left out: {len(header.others)} tensors that are not of the transformer.")
    say("Put it into ComfyUI's models/diffusion_models and open it with Load MF Model.")
    if source.is_dir() and (source / ENCODER_FILE).exists() and not one_file:
        say(f"For the autoencoder: mforce convert {source / ENCODER_FILE} VAE.safetensors")


def _precision(to: str | None) -> Precision | None:
    if to is None:
        return None
    for precision in PRECISIONS:
        if to == precision:
            return precision
    raise ValueError(f"--to {to} is unknown: choose {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")
