"""Low-rank adapters (Hu et al., arXiv 2106.09685) on the image and text half, and their file."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..mforce_core.model.config import ConfigError, Distilled
from ..mforce_core.weights.update import PREFIX, Update
from ..mforce_core.whole_file import whole_file
from .config import LoraConfig
from .initialize import MasterWeightLinear

#: Starts of the names of layers that can be targets: of the image and text half, and of depth alone.
_HALF: tuple[str, ...] = ("double_blocks.", "single_blocks.", "img_in", "txt_in")
_DEPTH: tuple[str, ...] = ("depth_decoder_blocks.", "depth_in")


class LoraLinear(MasterWeightLinear):
    """``W x + (alpha / rank) B A x``; ``active`` = False leaves the base's layer."""

    def __init__(self, base: nn.Linear, config: LoraConfig) -> None:
        super().__init__(base.in_features, base.out_features, bias=False, device="meta", dtype=base.weight.dtype)
        self.weight = base.weight
        self.lora_A = MasterWeightLinear(base.in_features, config.rank, bias=False, device="meta")
        self.lora_B = MasterWeightLinear(config.rank, base.out_features, bias=False, device="meta")
        self.scale, self.active = config.alpha / config.rank, True

    def forward(self, input: Tensor) -> Tensor:
        y = super().forward(input)
        if not self.active:
            return y
        return y + self.scale * self.lora_B(self.lora_A(input))


def add_lora(model: nn.Module, config: LoraConfig, *, with_depth: bool = False) -> None:
    """Replace the targeted Linear layers; the model is on the meta device still.

    Args:
        with_depth: also the depth stream's, by the targets of the image stream that they mirror; without it the
            targets are of the image and text half alone.

    Raises:
        ConfigError: a target that names no layer.
    """
    starts = _HALF + _DEPTH if with_depth else _HALF
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(starts)
    }
    for target in config.targets:
        found = [name for name in layers if name == target or name.endswith("." + target)]
        if not found or (not with_depth and any("depth" in name for name in found)):
            raise ConfigError(f"lora.targets: {target} is no Linear layer of the image and text half")
        for name in [*found, *_twins(found, layers)] if with_depth else found:
            parent, _, leaf = name.rpartition(".")
            model.get_submodule(parent).add_module(leaf, LoraLinear(layers[name], config))


def _twins(names: list[str], layers: Mapping[str, nn.Linear]) -> list[str]:
    """The depth stream's layers that mirror some of the image stream."""
    twins = [name.replace("img_", "depth_") for name in names if "img_" in name]
    return [name for name in twins if name in layers and name not in names]


@contextmanager
def lora_off(model: nn.Module) -> Iterator[None]:
    """The base's layers alone."""
    layers = [module for module in model.modules() if isinstance(module, LoraLinear)]
    for layer in layers:
        layer.active = False
    try:
        yield
    finally:
        for layer in layers:
            layer.active = True


def split_lora(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The model's own tensors, and the pairs ``layer.lora_A.weight`` (r, in) and ``layer.lora_B.weight`` (out, r)."""
    pairs = {name: tensor for name, tensor in state.items() if ".lora_" in name}
    return {name: tensor for name, tensor in state.items() if name not in pairs}, pairs


def merge_lora(weights: Mapping[str, Tensor], pairs: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """``W + (alpha / rank) B A`` in float32 for every layer with a pair."""
    update = Update({**pairs, **_alphas(pairs, config)})
    return {name: update.add_to(name, weight) for name, weight in weights.items()}


def _alphas(pairs: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    return {f"{name.split('.lora_')[0]}.alpha": torch.tensor(config.alpha) for name in pairs}


def save_lora(pairs: Mapping[str, Tensor], config: LoraConfig, path: Path, distilled: Distilled | None = None) -> None:
    """Write the file that ComfyUI's LoraLoader opens: pairs and ``alpha`` of each layer, and in its metadata how the
    model is to be run with it, where it makes one of few steps."""
    tensors = {PREFIX + name: tensor.to(torch.bfloat16).contiguous() for name, tensor in pairs.items()}
    tensors |= {PREFIX + name: alpha for name, alpha in _alphas(pairs, config).items()}
    metadata = {"format": "pt"}
    if distilled is not None:
        metadata["distilled"] = json.dumps(distilled.to_dict())
    with whole_file(path, suffix="") as partial:
        save_file(tensors, partial, metadata=metadata)
