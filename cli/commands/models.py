"""The commands about models: info, convert, difference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import report_errors
from . import options


def info(
    checkpoint: Annotated[
        str | None, typer.Argument(help="Release folder, .safetensors file, LoRA, nano or nano-fast.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    memory: Annotated[bool, typer.Option("--memory", help="Also how much memory the weights take.")] = False,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="What runs each step of the model on this machine, and why.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Describe a checkpoint without loading it, or this machine's kernels. Exits with 1 where it has problems."""
    with report_errors(debug):
        if (checkpoint is None) != kernels:
            raise ValueError("Give a checkpoint to describe, or --kernels without one.")
        if checkpoint is None:
            from ..kernel_info import describe_kernels, print_kernels

            devices = describe_kernels()
            if as_json:
                print(json.dumps(devices, indent=2))
            else:
                print_kernels(devices)
            return
        from ..checkpoint_info import describe_checkpoint
        from ..lora_info import LoraSummary, describe_lora, is_lora
        from ..tables import print_checkpoint, print_lora

        path = Path(checkpoint)
        found = describe_lora(path) if is_lora(path) else describe_checkpoint(path, memory=memory)
        if as_json:
            print(json.dumps(found.to_dict(), indent=2))
        elif isinstance(found, LoraSummary):
            print_lora(found)
        else:
            print_checkpoint(found)
        if found.problems:
            raise typer.Exit(1)


def convert(
    source: Annotated[
        Path, typer.Argument(help="Release folder, .safetensors file or nano; or a release's ae_encoder.safetensors.")
    ],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    to: Annotated[
        str | None,
        typer.Option(
            help="bf16, fp32, fp8 or int8. Default: bf16; an autoencoder keeps its precision, and so does a quantized "
            "model that parts are put beside."
        ),
    ] = None,
    text_encoder: Annotated[
        Path | None,
        typer.Option(
            help="Put this text encoder into the file, too: a folder or file with Qwen3, or a small model's words."
        ),
    ] = None,
    vae: Annotated[Path | None, typer.Option(help="Put this autoencoder into the file, too: a folder or file.")] = None,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Put the parts that lie beside the model into the file, too.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")] = False,
    debug: options.Debug = False,
) -> None:
    """Make a release one file for ComfyUI, whole or at half the size, alone or with its other parts."""
    with report_errors(debug):
        from ..convert import run_conversion

        run_conversion(source, out, to, text_encoder=text_encoder, vae=vae, bundle=bundle, overwrite=overwrite)
        print(out)


def difference(
    base: Annotated[str, typer.Argument(help="Release folder, .safetensors file, nano or nano-fast.")],
    model: Annotated[str, typer.Argument(help="A model of the same architecture, such as its student.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    megabytes: Annotated[float, typer.Option(help="The largest size of the file, in millions of bytes.")] = 500.0,
    to: Annotated[str, typer.Option(help="fp8, with a scale for each tensor, or bf16.")] = "fp8",
    device: options.Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there already.")] = False,
    debug: options.Debug = False,
    calibrate: Annotated[
        int,
        typer.Option(
            help="Run MODEL on so many prompts, such as 16, and keep what counts for its predictions; 0 runs nothing"
            " and keeps the most of the weights' squared difference.",
            min=0,
        ),
    ] = 0,
    prompts: Annotated[
        Path | None, typer.Option(help="Text file of prompts for --calibrate, one per line. Default: those of nano.")
    ] = None,
    text_encoder: Annotated[
        Path | None, typer.Option(help="For --calibrate: folder with Qwen3, where the base has no text encoder.")
    ] = None,
) -> None:
    """Write what turns BASE into MODEL as a LoRA of a given size, which core's LoraLoader puts onto BASE."""
    with report_errors(debug):
        from ..difference import run_difference

        run_difference(
            base, model, out, megabytes=megabytes, values=to, device=device, overwrite=overwrite,
            calibrate=calibrate, prompts=prompts, text_encoder=text_encoder,
        )  # fmt: skip
        print(out)
