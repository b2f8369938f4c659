"""Depth files in ComfyUI's folders: what can be chosen, what is written, where it comes from.

Relies on: ``folder_paths`` (input and output folder, numbered names), ``comfy.cli_args`` (--disable-metadata), and the
hidden inputs ``prompt`` and ``extra_pnginfo``, which core writes into pictures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy.cli_args import args
from torch import Tensor

from ...mforce_core.depth.files import LEVELS, Encoding, write_16_bit, write_exr, write_float_tiff, write_npy
from ...mforce_core.depth.range import percentile_range, stretch
from ...mforce_core.depth.sequences import depth_file_names
from ...mforce_core.whole_file import whole_file

PNG, EXR, NPY, TIFF = FORMATS = ("png (16-bit)", "exr", "npy", "tiff (32-bit)")
_ENDINGS = {PNG: "png", EXR: "exr", NPY: "npy", TIFF: "tiff"}
#: What the numbers of a file are. The spelling of the last is part of saved workflows.
AS_DEPTH, AS_DISPARITY, AS_NORMALIZED = MEANINGS = ("depth", "disparity (1 / depth)", "normalised (near 0, far 1)")
_LONGEST_NAME = 100


def input_depth_files() -> list[str]:
    """Files in ComfyUI's input folder that may be depth maps, those in subfolders too, sequences as name.####.exr."""
    return depth_file_names(Path(folder_paths.get_input_directory()))


def output_paths(prefix: str, ending: str, maps: Tensor, first_frame: int | None = None) -> tuple[list[Path], str]:
    """New files in the output folder, one per map (B, H, W), and their subfolder.

    %batch_num% in the prefix becomes the map's number in the batch; no file that is there already is named.

    Args:
        ending: of the files, without its dot.
        first_frame: number of the first file of a sequence, name_00001.1001.exr and so on, in which the first number
            counts runs; None counts files, name_00001.exr.

    Raises:
        ValueError: the prefix leads out of the output folder, or cannot be a file's name; or the folder cannot be made.
    """
    folder, name, counter, subfolder = _place(prefix, maps.shape[2], maps.shape[1])
    if "%batch_num%" in name or first_frame is not None:  # core counts name_00001.png alone
        numbered = re.escape(name).replace("%batch_num%", r"\d+") + r"_(\d+)\."
        taken = (re.match(numbered, file.name) for file in Path(folder).iterdir())
        counter = max((int(match[1]) for match in taken if match), default=0) + 1
    names = [name.replace("%batch_num%", str(index)) for index in range(len(maps))]
    if first_frame is not None:
        numbers = [f"{counter:05}.{first_frame + index:04}" for index in range(len(maps))]
    else:
        numbers = [f"{counter + index:05}" for index in range(len(maps))]
    paths = [Path(folder) / f"{one}_{number}.{ending}" for one, number in zip(names, numbers, strict=True)]
    return paths, subfolder


def depth_paths(prefix: str, format: str, maps: Tensor, first_frame: int | None) -> tuple[list[Path], str]:
    """The same for depth in one of `FORMATS`."""
    return output_paths(prefix, _ENDINGS[format], maps, first_frame)


def output_folder(prefix: str, width: int, height: int) -> Path:
    """A folder in the output folder that is not there yet, name_00001, for files of pictures of a size.

    Raises:
        ValueError: as `output_paths`.
    """
    folder, name, counter, _ = _place(prefix, width, height)
    path = Path(folder) / f"{name}_{counter:05}"
    try:
        path.mkdir()  # so that a name that cannot be is refused before the work
        path.rmdir()
    except (OSError, ValueError) as error:
        raise _unusable(prefix, error) from error
    return path


def _place(prefix: str, width: int, height: int) -> tuple[str, str, int, str]:
    """Folder, name, first free number and subfolder of new files in the output folder."""
    output = folder_paths.get_output_directory()
    try:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, output, width, height)
    except (OSError, ValueError) as error:
        raise _unusable(prefix, error) from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        # Core's refusal has no type of its own, and names the server's folders.
        raise ValueError(f"filename_prefix {_short(prefix)} leads out of the output folder.") from error
    return folder, name, counter, subfolder


def _unusable(prefix: str, error: Exception) -> ValueError:
    return ValueError(f"filename_prefix {_short(prefix)} cannot be used: {_reason(error)}.")


def encode_values(maps: Tensor, valid: Tensor, meaning: str, near: float, far: float) -> tuple[Tensor, Encoding]:
    """Depth (B, H, W) as the numbers of a file, NaN where not valid, and what they mean.

    Args:
        meaning: one of `MEANINGS`.
        near, far: depth that becomes 0 and 1 when normalized; 0 takes the nearest or farthest of the whole batch.

    Raises:
        ValueError: far is not larger than near.
    """
    missing = torch.full_like(maps, torch.nan)
    if meaning == AS_DEPTH:
        return torch.where(valid, maps, missing), Encoding()
    if meaning == AS_DISPARITY:
        return torch.where(valid, 1.0 / maps, missing), Encoding(disparity=True)
    nearest, farthest = percentile_range(maps, valid, 0.0, together=True)[0].tolist()
    near, far = near or nearest, far or farthest
    if not near < far:
        raise ValueError(f"near is {near:g} and far is {far:g}; far must be the larger one.")
    limits = torch.tensor([[near, far]], dtype=maps.dtype).expand(len(maps), 2)
    # 0 is kept for pixels without depth.
    scaled = stretch(maps, valid, limits).clamp(min=1 / LEVELS)
    return torch.where(valid, scaled, missing), Encoding(scale=far - near, offset=near)


def write_depth(
    path: Path, numbers: Tensor, encoding: Encoding, format: str, *, channel: str, step: float | None, hidden: Any
) -> None:
    """Write the numbers (H, W) of `encode_values`; the file appears when it is complete.

    Args:
        format: one of `FORMATS`.
        channel: of an EXR file.
        step: value of one of a PNG's 65535 levels; None chooses it.
        hidden: the node's hidden inputs, which PNG and EXR files carry.

    Raises:
        ValueError: a library that the format needs is not installed; or the file cannot be written.
    """
    with written(path, "Or choose png or npy as the format.") as partial:
        if format == EXR:
            write_exr(partial, numbers.numpy(), encoding, channel=channel, attributes=provenance(hidden))
        elif format == NPY:
            write_npy(partial, numbers.numpy())
        elif format == TIFF:
            write_float_tiff(partial, numbers.numpy(), encoding)
        else:
            write_16_bit(partial, numbers.numpy(), encoding, step=step, text=provenance(hidden))


@contextmanager
def written(path: Path, otherwise: str = "") -> Iterator[Path]:
    """Yield a path to write to, which becomes ``path`` when the block ends without a fault.

    Args:
        otherwise: what else to do where a library is not installed.

    Raises:
        ValueError: in one sentence: a library is not installed; or the file cannot be written.
    """
    try:
        with whole_file(path) as partial:
            yield partial
    except ModuleNotFoundError as error:
        raise ValueError(f"{error} {otherwise}".strip()) from error
    except (OSError, ValueError) as error:
        raise refusal(_short(path.name), error) from error


def refusal(what: str, error: Exception) -> ValueError:
    """The sentence for something that could not be written."""
    return ValueError(f"{what} could not be written: {_reason(error)}.")


def _reason(error: Exception) -> str:
    """Why a file could not be written, without the path."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.rstrip(".").lower()


def _short(name: str) -> str:
    """A name as a sentence can hold it."""
    return repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}...")


def provenance(hidden: Any) -> dict[str, str]:
    """The prompt and the workflow, as core stores them in pictures; nothing under --disable-metadata."""
    if args.disable_metadata or hidden is None:
        return {}
    found = {} if hidden.prompt is None else {"prompt": hidden.prompt}
    return {key: json.dumps(value) for key, value in {**found, **(hidden.extra_pnginfo or {})}.items()}
