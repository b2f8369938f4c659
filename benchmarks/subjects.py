"""The models that are measured: published sizes with random weights."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..mforce_core import load_text_encoder
from ..mforce_core.model.config import VARIANTS, Architecture, read_config
from ..mforce_core.model.transformer import ModalityForcingTransformer
from ..mforce_core.release import PATCH_SIZE, RELEASE_SIZE, TEXT_TOKENS

_NANO = Path(__file__).parent.parent / "models" / "nano"


class Subject(NamedTuple):
    """Sizes of a model and of what it is given: text tokens, and (h, w) tokens of each of image and depth."""

    name: str
    architecture: Architecture
    text: int = TEXT_TOKENS
    grid: tuple[int, int] = (RELEASE_SIZE // PATCH_SIZE, RELEASE_SIZE // PATCH_SIZE)

    @property
    def image(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        return self.text + 2 * self.image

    def model(self, device: torch.device, dtype: torch.dtype) -> ModalityForcingTransformer:
        """Random weights, made on the device in the dtype: they exist once."""
        torch.manual_seed(0)
        return ModalityForcingTransformer(self.architecture, device=device, dtype=dtype).requires_grad_(False).eval()

    def inputs(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Gaussian RGB, depth and text, float32."""
        torch.manual_seed(1)
        sizes, image = self.architecture, self.image
        shapes = ((image, sizes.in_channels), (image, sizes.depth_channels), (self.text, sizes.context_in_dim))
        rgb, depth, text = (torch.randn(1, *shape, device=device) for shape in shapes)
        return rgb, depth, text


def _nano() -> Subject:
    architecture = read_config(_NANO / "config.json").architecture
    assert architecture is not None
    return Subject("nano", architecture, load_text_encoder(_NANO).length, (8, 8))


SUBJECTS = {
    "nano": _nano,
    "231m": lambda: Subject(
        "231m",
        Architecture(
            context_in_dim=1536,
            hidden_size=1024,
            num_heads=8,
            depth_double=2,
            depth_single=6,
            depth_decoder_num_layers=2,
        ),
    ),
    "klein-4b": lambda: Subject(
        "klein-4b",
        Architecture(context_in_dim=7680, hidden_size=3072, num_heads=24, depth_double=5, depth_single=20),
    ),
    "12b-v2": lambda: Subject("12b-v2", VARIANTS["flux_rgbd_9b_v2"]),
}


def subject(name: str) -> Subject:
    """A subject by name.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in SUBJECTS:
        raise ValueError(f"There is no architecture {name!r} to measure: choose one of {', '.join(SUBJECTS)}.")
    return SUBJECTS[name]()
