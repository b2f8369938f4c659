"""Weights as ComfyUI's operations take them: plain ones of any dtype, and quantized layers as core loads them.

Relies on: ``comfy.quant_ops.QUANT_ALGOS``, ``comfy.utils.convert_old_quants``, the mixed-precision layers of
``comfy.ops``, and ``comfy.model_management.archive_model_dtypes``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.quant_ops
import comfy.utils
import torch
from torch import Tensor

from ...mforce_core.weights.header import CheckpointHeader
from ...mforce_core.weights.quantization import MARKER, RENAMED, read_marker, write_marker
from ...mforce_core.weights.tensor_files import CheckpointError, open_tensors


def read_weights(header: CheckpointHeader, *, fp8_matmul: bool) -> dict[str, Tensor]:
    """The checkpoint's tensors, mapped; those of quantized layers under the names that core reads now.

    Args:
        fp8_matmul: let quantized layers multiply in 8 bits also where the file asks for full precision.

    Raises:
        CheckpointError: a format that this ComfyUI does not know.
    """
    formats = {settings["format"] for settings in header.quantized.values()}
    if unknown := formats - comfy.quant_ops.QUANT_ALGOS.keys():
        raise CheckpointError(f"its layers are quantized as {', '.join(sorted(unknown))}, which needs a newer ComfyUI")
    stored = {file: _read_file(file) for file in header.files}
    tensors = {name: source.read(lambda file, key: stored[file][key]) for name, source in header.sources.items()}
    tensors, _ = comfy.utils.convert_old_quants(tensors, metadata={})
    for layer, settings in header.quantized.items():
        for old, new in RENAMED.items():  # scaled fp8 without the marker by which core knows it
            if f"{layer}.{old}" in tensors:
                tensors[f"{layer}.{new}"] = tensors.pop(f"{layer}.{old}")
        marker = f"{layer}.{MARKER}"
        settings = read_marker(tensors[marker]) if marker in tensors else dict(settings)
        if fp8_matmul:
            settings.pop("full_precision_matrix_mult", None)
        tensors[marker] = write_marker(settings)
    return tensors


def _read_file(file: Path) -> dict[str, Tensor]:
    if file.suffix.lower() != ".gguf":
        return comfy.utils.load_torch_file(str(file), safe_load=True)
    with open_tensors(file) as tensors:  # dequantized: in memory it takes what the 16-bit file does
        return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 - not a mapping


def assign_weights(model: Any, tensors: dict[str, Tensor]) -> None:
    """Make ``tensors``, cast to what the model keeps, its parameters."""
    wanted = {name: parameter.dtype for name, parameter in model.diffusion_model.named_parameters()}
    for name in tensors:
        # Norm scales and gates are too few to be worth 8 bits.
        target = model.get_dtype_inference() if tensors[name].ndim == 1 else wanted[name]
        tensors[name] = tensors[name].to(target)
    model.diffusion_model.load_state_dict(tensors, assign=True)
    model.diffusion_model.requires_grad_(False)
    comfy.model_management.archive_model_dtypes(model.diffusion_model)


def assign_quantized_weights(model: Any, tensors: dict[str, Tensor]) -> None:
    """Load ``tensors`` into core's mixed-precision layers, which cast plain weights themselves."""
    transformer = model.diffusion_model
    for name, _ in transformer.named_parameters():
        tensors[name] = tensors[name].to(model.get_dtype_inference())
    transformer.load_state_dict(tensors, assign=True)
    # Those layers know one dtype for all; the depth head's is float32.
    for name, layer in transformer.depth_final_layer.named_modules():
        if hasattr(layer, "weight"):
            weight = tensors[f"depth_final_layer.{name}.weight"].float()
            layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    transformer.requires_grad_(False)
