"""From the text of options to values."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ...mforce_core.settings import ALL_BUILT_IN, check_grid


def model_files(model: str, text_encoder: Path | None, vae: Path | None) -> dict[str, Any]:
    """Settings of the model's files, absolute, so that a rerun or a process in another folder finds them."""
    return {
        "model": model if model in ALL_BUILT_IN else str(Path(model).absolute()),
        "text_encoder": None if text_encoder is None else str(text_encoder.absolute()),
        "vae": None if vae is None else str(vae.absolute()),
    }


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``"512x384"`` -> (512, 384), width first; ``"512"`` is a square."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--size must look like 512x384 (width x height), got {text!r}.")
    width, height = int(parts[0]), int(parts[-1])
    check_grid(width, height)
    return width, height


def whole_numbers(option: str, text: str, least: int) -> list[int]:
    """``"2, 4"`` -> [2, 4], for an option such as ``--factors``, from ``least`` on."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= least for part in parts):
        raise ValueError(f"{option} are whole numbers from {least} on, separated by commas, got {text!r}.")
    return [int(part) for part in parts]


def depth_or_disparity(option: str, text: str) -> Literal["depth", "disparity"]:
    """What the numbers of saved maps or of another model are, for an option such as ``--kind``."""
    if text not in ("depth", "disparity"):
        raise ValueError(f"{option} is depth or disparity, not {text}.")
    return "disparity" if text == "disparity" else "depth"


def parse_devices(text: str) -> tuple[str, ...]:
    """``"cuda:0,cuda:1"`` -> ("cuda:0", "cuda:1"); "auto" becomes the device that it stands for."""
    from ...mforce_core.device import choose_device  # PyTorch comes late: help is shown without it

    return tuple(choose_device(device.strip()) for device in text.split(","))


def parse_interval(text: str | None) -> tuple[float, float] | None:
    """``"0.2,1"`` -> (0.2, 1.0)."""
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--cfg-interval must be two noise levels such as 0.2,1, got {text!r}.") from None
    return low, high
