"""Transformers from files and back: GGUF and safetensors are read, safetensors written.

The model is built on the meta device and its parameters become the file's mapped tensors, so a load never holds the
weights twice.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from ..model.config import ConfigError, Distilled
from ..model.transformer import ModalityForcingTransformer
from ..whole_file import whole_file
from .header import check_tensors, read_header
from .layouts import LANDMARK
from .named_parts import Part
from .quantization import QuantizationError
from .reading import read_weights
from .tensor_files import CheckpointError


def load_model(
    path: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> ModalityForcingTransformer:
    """Load a transformer for inference.

    Args:
        path: release folder (``config.json`` beside the weights), single ``.safetensors`` file, or FLUX.2-klein base
            (which has no depth stream).
        device: where the weights go.
        dtype: torch.float32 or torch.bfloat16; None keeps the file's (float16 and 8-bit files become bfloat16). The
            weights of scaled fp8 and int8 layers are turned into this dtype once, when they are loaded.

    Returns:
        The model in eval mode; ``model.config`` and ``model.schedule`` describe it.

    Raises:
        CheckpointError, ConfigError: truncated or foreign file, tensors missing, extra or of the wrong shape.
    """
    header = read_header(path)
    try:
        architecture = header.architecture
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    problems = check_tensors(header.shapes, architecture)
    if problems:
        raise CheckpointError(f"{path} does not hold the model it should: {'; '.join(problems)}")
    if dtype is None:
        dtype = torch.float32 if header.dtypes[LANDMARK] == "F32" else torch.bfloat16
    if dtype not in (torch.float32, torch.bfloat16):
        raise CheckpointError(
            f"dtype {dtype} is not supported: float16 overflows in this model, use bfloat16 or float32"
        )

    with torch.device("meta"):
        model = ModalityForcingTransformer(architecture, schedule=header.config.schedule, dtype=dtype)
    wanted = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    try:
        # Without a cast or a move the parameter stays a view of the mapped file.
        state = {name: weight.to(device, wanted[name]) for name, weight in read_weights(header)}
    except QuantizationError as error:
        raise CheckpointError(f"{path}: {error}") from None
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def save_model(
    model: ModalityForcingTransformer,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    image_size: tuple[int, int] | None = None,
    parts: Mapping[Part, str] | None = None,
    distilled: Distilled | None = None,
) -> None:
    """Write ``config.json`` and ``model.safetensors`` in the release's layout; :func:`load_model` opens the folder.

    ``image_size`` (width, height) in pixels is what the model was trained at; the command line makes such pictures.
    ``parts`` names its text encoder and autoencoder (see :mod:`.named_parts`). ``distilled`` says how a model of few
    steps is to be run.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, object] = {"architecture": model.config.to_dict(), "schedule": vars(model.schedule)}
    if image_size is not None:
        config["image_size"] = list(image_size)
    if distilled is not None:
        config["distilled"] = distilled.to_dict()
    for part, name in (parts or {}).items():
        config[part] = name
    tensors = {
        "dit." + name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.state_dict().items()
    }
    with whole_file(folder / "model.safetensors", suffix="") as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
