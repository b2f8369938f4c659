"""From a checkpoint to ComfyUI's MODEL.

Relies on: ``comfy.supported_models_base.BASE``, ``comfy.model_management.unet_dtype`` and ``unet_manual_cast`` for the
dtypes, and ``comfy.model_patcher.CoreModelPatcher`` with its ``cached_patcher_init``, which moves a model between
devices.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import torch

from ...mforce_core.parts import declared_size
from ...mforce_core.weights.header import check_tensors, read_header
from ...mforce_core.weights.reading import read_weights as dequantized_weights
from ...mforce_core.weights.tensor_files import CheckpointError
from .joint_model import JointModelConfig
from .sampler_wrappers import add_run_wrappers
from .weights import assign_quantized_weights, assign_weights, read_weights


def load_joint_model(
    path: str, dtype: torch.dtype | None = None, fp8_matmul: bool = False, dequantized: bool = False
) -> Any:
    """Load a Modality Forcing checkpoint as a ModelPatcher.

    Args:
        path: release folder or ``.safetensors`` file; a ``config.json`` beside the file describes it.
        dtype: of the weights in memory, possibly an 8-bit float; None leaves the choice to ComfyUI. Quantized
            checkpoints stay as they are.
        fp8_matmul: multiply in 8-bit floats where the device can.
        dequantized: turn quantized layers into plain ones, for a model whose 8 bits only keep its file small.

    Raises:
        CheckpointError, ConfigError: truncated or foreign file, tensors missing, extra or of the wrong shape.
    """
    header = read_header(path)
    architecture = header.architecture
    if not architecture.has_depth:
        raise CheckpointError(
            f"{Path(path).name} is a FLUX.2 text-to-image base without a depth stream: load it with Load"
            " Diffusion Model, or choose a Modality Forcing checkpoint here."
        )
    problems = check_tensors(header.shapes, architecture)
    if problems:
        raise CheckpointError(f"{Path(path).name} does not hold the model it should: {'; '.join(problems)}.")

    if header.update is not None or (dequantized and header.quantized):
        tensors = dict(dequantized_weights(header))
    else:
        tensors = read_weights(header, fp8_matmul=fp8_matmul)
    config = JointModelConfig(
        architecture, header.config.schedule, declared_size(path, header.metadata), header.config.distilled
    )
    config.quant_config = comfy.utils.detect_layer_quantization(tensors, "")
    _choose_dtypes(config, tensors, dtype, fp8_matmul)
    if config.quant_config:
        model = config.get_model(tensors)
        assign_quantized_weights(model, tensors)
    else:
        # Built without storage: parameters become the file's tensors, so the weights are never in memory twice.
        model = config.get_model(tensors, device="meta")
        assign_weights(model, tensors)

    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    model.to(offload_device)
    patcher = comfy.model_patcher.CoreModelPatcher(model, load_device=load_device, offload_device=offload_device)
    add_run_wrappers(patcher)
    patcher.cached_patcher_init = (load_joint_model, (path, dtype, fp8_matmul, dequantized))
    return patcher


def _choose_dtypes(
    config: JointModelConfig, tensors: dict[str, torch.Tensor], dtype: torch.dtype | None, fp8_matmul: bool
) -> None:
    """Storage and computation dtypes by ComfyUI's own rules; of a quantized model, those of its other weights."""
    device = comfy.model_management.get_torch_device()
    supported = list(config.supported_inference_dtypes)
    quantized = config.quant_config is not None
    if dtype is None or quantized:
        dtype = comfy.model_management.unet_dtype(
            model_params=comfy.utils.calculate_parameters(tensors),
            supported_dtypes=supported,
            weight_dtype=None if quantized else comfy.utils.weight_dtype(tensors),
        )
    cast = comfy.model_management.unet_manual_cast(None if quantized else dtype, device, supported)
    config.set_inference_dtype(dtype, cast, device=device)
    config.optimizations["fp8"] = fp8_matmul
