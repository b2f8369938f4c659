"""8-bit weights as ComfyUI stores and loads them: scaled fp8 and rotated int8, there and back.

Beside the ``weight`` of a quantized layer lie ``weight_scale`` (float32) and ``comfy_quant``, a JSON object as bytes
that names the format; instead of the latter a file's metadata may list the formats of its layers. Older files have
``scale_weight`` and one tensor ``scaled_fp8`` for the whole model.

int8 follows ConvRot: groups of input features are rotated by a Hadamard matrix, which spreads outliers over the group,
and each output row gets a scale. Activations are rotated the same way when the layer runs.
"""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

FP8, INT8 = "float8_e4m3fn", "int8_tensorwise"

#: Formats of 8-bit floats by the names of their dtypes in safetensors.
FLOATS = {"F8_E4M3": FP8, "F8_E5M2": "float8_e5m2"}

#: Formats that store two values in a byte, so that a weight's second dimension is half of its layer's.
PACKED = ("nvfp4", "convrot_w4a4", "asym_w4a8_int8")

#: The names of a weight's scale, now and in older files; and in any format.
SCALES = ("weight_scale", "scale_weight")
ANY_SCALE = (*SCALES, "weight_s_rel")
#: Older names of what lies beside a quantized weight, and those that go with a marker.
RENAMED = {"scale_weight": "weight_scale", "scale_input": "input_scale"}
MARKER = "comfy_quant"
LEGACY_MARKER = "scaled_fp8"
METADATA = "_quantization_metadata"
#: Tensors beside the weight of a quantized layer, in all formats and both generations of names.
BESIDE = (
    MARKER,
    *ANY_SCALE,
    *("weight_scale_2", "weight_s_channel", "weight_codebook"),
    *("input_scale", "scale_input", "pre_quant_scale"),
)

# Sizes of Hadamard matrices that GPU kernels know, best first; ComfyUI's own default is the largest.
_ROTATIONS = (256, 64, 16)
_INT8_MAX, _TINY = 127.0, 1e-30
#: The largest number of float8_e4m3fn.
FP8_MAX = 448.0
# Values that are worked on at once: bounds the float32 copies of a layer.
_CHUNK = 1 << 24


class QuantizationError(ValueError):
    """A quantized tensor that cannot be read here."""


class QuantizedWeight(NamedTuple):
    """Stored values, their scale, and the settings of the layer (the JSON of its marker)."""

    values: Tensor
    scale: Tensor
    settings: dict[str, Any]


def quantize_fp8(weight: Tensor) -> QuantizedWeight:
    """(out, in) floats -> float8_e4m3fn with one scale, which puts the largest value at the format's end.

    The settings ask for multiplication in full precision: ComfyUI would otherwise round activations to 8 bits as well,
    which costs more than the rounding of the weights.
    """
    low, high = torch.aminmax(weight)
    scale = torch.maximum(-low, high).float().clamp(min=_TINY) / FP8_MAX
    pieces = [(piece.float() / scale).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn) for piece in _pieces(weight)]
    return QuantizedWeight(torch.cat(pieces), scale, {"format": FP8, "full_precision_matrix_mult": True})


def quantize_int8(weight: Tensor) -> QuantizedWeight:
    """(out, in) floats -> int8, rotated where a group size divides the input, with a scale for every row, (out, 1)."""
    settings: dict[str, Any] = {"format": INT8}
    group = next((size for size in _ROTATIONS if weight.shape[1] % size == 0), None)
    if group is not None:
        settings |= {"convrot": True, "convrot_groupsize": group}
    values, scales = [], []
    for piece in _pieces(weight):
        rows = piece.float() if group is None else rotate(piece.float(), group)
        scales.append(rows.abs().amax(1, keepdim=True).clamp(min=_TINY) / _INT8_MAX)
        values.append((rows / scales[-1]).round().to(torch.int8))
    return QuantizedWeight(torch.cat(values), torch.cat(scales), settings)


def dequantize(weight: Tensor, scale: Tensor, settings: Mapping[str, Any]) -> Tensor:
    """Stored values, (out, in), to float32.

    Raises:
        QuantizationError: a format other than scaled fp8 and int8.
    """
    values = weight.float() * scale.float()
    if settings["format"] in (FP8, "float8_e5m2"):
        return values
    if settings["format"] != INT8:
        raise QuantizationError(
            f"weights in the format {settings['format']} are read by ComfyUI only: use the bf16, fp8 or int8 file here"
        )
    options = dict(settings) | dict(settings.get("params") or {})
    if not options.get("convrot"):
        return values
    group = options.get("convrot_groupsize", 256)
    if not isinstance(group, int) or not 4 <= group <= values.shape[-1] or values.shape[-1] % group:
        raise QuantizationError(f"a layer of {values.shape[-1]} features cannot be rotated in groups of {group!r:.40}")
    return rotate(values, group)


def rotate(weight: Tensor, group: int) -> Tensor:
    """Multiply every group of input features with a Hadamard matrix; doing it twice gives the weight back."""
    matrix = _hadamard(group)
    return (weight.unflatten(1, (-1, group)) @ matrix).flatten(1)


def write_marker(settings: Mapping[str, Any]) -> Tensor:
    """The ``comfy_quant`` tensor of a layer's settings."""
    return torch.tensor(list(json.dumps(dict(settings)).encode()), dtype=torch.uint8)


def read_marker(marker: Tensor) -> dict[str, Any]:
    """The settings in a ``comfy_quant`` tensor.

    Raises:
        QuantizationError: not a JSON object with a format.
    """
    try:
        return _checked(json.loads(bytes(marker.tolist())))
    except (ValueError, TypeError, RecursionError) as error:
        raise QuantizationError(f"a {MARKER} tensor does not hold the format of its layer ({error})") from error


def read_metadata(text: str) -> dict[str, dict[str, Any]]:
    """The settings of every layer that a file's metadata names.

    Raises:
        QuantizationError: not a JSON object of layers.
    """
    try:
        return {name: _checked(settings) for name, settings in json.loads(text)["layers"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise QuantizationError(f"the metadata {METADATA!r} does not list layers and formats ({error})") from error


def _checked(settings: Any) -> dict[str, Any]:
    if not isinstance(settings, dict) or not isinstance(settings.get("format"), str):
        raise ValueError("there is no format in it")
    return settings


def _pieces(weight: Tensor) -> tuple[Tensor, ...]:
    return weight.split(max(1, _CHUNK // weight.shape[1]))


@cache
def _hadamard(size: int) -> Tensor:
    """The regular Hadamard matrix of a power of 4, scaled to be orthogonal; symmetric, so it is its own inverse."""
    core = torch.tensor([[1.0, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]])
    matrix = core
    while matrix.shape[0] < size:
        matrix = torch.kron(matrix, core)
    if matrix.shape[0] != size:
        raise QuantizationError(f"rotation groups of {size} features are not a power of 4")
    return matrix / size**0.5
