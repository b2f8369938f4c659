"""Depth models of other projects, where they are installed. None is needed here, and none is downloaded unasked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...mforce_core.optional import need
from .alignment import Kind
from .example import Example


def open_peer(name: str, kind: Kind, *, device: str, members: int, seed: int) -> Peer:
    """Load ``FAMILY:ID``; the ID is a folder or a name that the family's library resolves.

    Args:
        name: ``transformers:depth-anything/Depth-Anything-V2-Small-hf``, ``moge:Ruicheng/moge-2-vitl``,
            ``marigold:prs-eth/marigold-depth-v1-1``.
        kind: what a transformers model predicts; the others predict depth.
        device: to run on.
        members: of Marigold's ensemble.
        seed: of Marigold's noise.

    Raises:
        ValueError: another family, or the model cannot be loaded.
        ModuleNotFoundError: the library is not installed.
    """
    family, _, model = name.partition(":")
    if family not in _FAMILIES or not model:
        raise ValueError(f"A peer is {', '.join(f'{known}:ID' for known in _FAMILIES)}, not {name}.")
    if family != "transformers" and kind != "depth":
        raise ValueError(f"{family} predicts depth.")
    if family != "marigold" and members != 1:
        raise ValueError(f"{family} predicts the same map every time: an ensemble is of no use.")
    infer = _FAMILIES[family](model, device, members, seed)
    return Peer(kind, infer)


class Peer:
    """A loaded model of another project."""

    def __init__(self, kind: Kind, infer: Callable[[np.ndarray], np.ndarray]) -> None:
        self.kind, self._infer = kind, infer

    @torch.inference_mode()
    def predict(self, example: Example) -> np.ndarray:
        """(h, w) float32, NaN where there is none."""
        values = np.asarray(self._infer(example.image), dtype=np.float32)
        return np.where(np.isfinite(values), values, np.float32(np.nan))


Infer = Callable[[np.ndarray], Any]


def _transformers(model: str, device: str, members: int, seed: int) -> Infer:
    library = need("transformers", "A model of transformers", "transformers")
    try:
        processor = library.AutoImageProcessor.from_pretrained(model)
        network = library.AutoModelForDepthEstimation.from_pretrained(model, use_safetensors=True).to(device).eval()
    except OSError as error:
        raise ValueError(f"{model} cannot be loaded by transformers: {str(error).splitlines()[0]}") from None

    def infer(image: np.ndarray) -> np.ndarray:
        inputs = processor(images=Image.fromarray(image), return_tensors="pt").to(device)
        outputs = network(**inputs)
        (found,) = processor.post_process_depth_estimation(outputs, target_sizes=[image.shape[:2]])
        return found["predicted_depth"].float().cpu().numpy()

    return infer


def _moge(model: str, device: str, members: int, seed: int) -> Infer:
    version = "v1" if "moge-vit" in model.lower() else "v2"
    library = need(f"moge.model.{version}", "A model of MoGe", "git+https://github.com/microsoft/MoGe")
    network = library.MoGeModel.from_pretrained(model).to(device).eval()

    def infer(image: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(image).permute(2, 0, 1).to(device) / 255
        # Masked depth is infinite; unmasked as in MoGe's own evaluation.
        return network.infer(pixels, apply_mask=False)["depth"].float().cpu().numpy()

    return infer


def _marigold(model: str, device: str, members: int, seed: int) -> Infer:
    library = need("diffusers", "Marigold", "diffusers")
    pipeline = library.MarigoldDepthPipeline.from_pretrained(model, use_safetensors=True).to(device)

    def infer(image: np.ndarray) -> np.ndarray:
        generator = torch.Generator(device).manual_seed(seed)
        found = pipeline(Image.fromarray(image), ensemble_size=members, generator=generator)
        return np.asarray(found.prediction).squeeze()

    return infer


_FAMILIES: dict[str, Callable[[str, str, int, int], Infer]] = {
    "transformers": _transformers,
    "moge": _moge,
    "marigold": _marigold,
}
