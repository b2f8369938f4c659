"""From files to a transformer: release folders, single files and FLUX.2-klein bases, safetensors only.

The model is built on the meta device and its parameters become the file's mapped tensors, so a load never holds the
weights twice.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .config import Architecture, ConfigError, ModelConfig, Schedule, infer_architecture, read_config
from .transformer import ModalityForcingTransformer

#: Prefixes under which the transformer is stored: the release, ComfyUI checkpoints, ComfyUI diffusion models, BFL.
PREFIXES = ("dit.", "model.diffusion_model.", "diffusion_model.", "")

# A tensor that every FLUX.2-family transformer has: where it sits tells the prefix.
_LANDMARK = "img_in.weight"

# Other parts of a release folder.
_COMPANIONS = ("ae_", "autoencoder", "text_encoder", "vae")


class CheckpointError(ValueError):
    """A checkpoint that cannot be opened or does not hold the model it should."""


@dataclass(frozen=True)
class CheckpointHeader:
    """What a checkpoint says of itself without its weights being read.

    ``shapes`` and ``dtypes`` are of the transformer's tensors, by names without ``prefix``; ``others`` names the
    tensors outside the prefix (a text encoder or autoencoder in the same file). ``files`` maps each transformer
    tensor to its file.
    """

    prefix: str
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    files: dict[str, Path]
    others: tuple[str, ...]
    config: ModelConfig

    @property
    def architecture(self) -> Architecture:
        """From the configuration, else from the shapes."""
        return self.config.architecture or infer_architecture(self.shapes)


def find_prefix(names: Iterable[str]) -> str:
    """The prefix of the transformer's tensors among ``names``.

    Raises:
        CheckpointError: no known prefix holds a FLUX.2-family transformer.
    """
    present = set(names)
    for prefix in PREFIXES:
        if prefix + _LANDMARK in present:
            return prefix
    raise CheckpointError(
        f"no Modality Forcing or FLUX.2 transformer here: no tensor is called {_LANDMARK!r} under the prefixes "
        f"{', '.join(repr(p) for p in PREFIXES)}"
    )


def check_tensors(found: Mapping[str, tuple[int, ...]], architecture: Architecture) -> list[str]:
    """Differences between a checkpoint's tensors and the architecture's, one phrase each; empty when they agree."""
    with torch.device("meta"):
        model = ModalityForcingTransformer(architecture)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = []
    for verb, names in (
        ("missing", expected.keys() - found.keys()),
        ("unexpected", found.keys() - expected.keys()),
    ):
        if names:
            listed = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            problems.append(f"{len(names)} {verb} tensor(s): {listed}")
    for name in sorted(expected.keys() & found.keys()):
        if expected[name] != tuple(found[name]):
            problems.append(f"{name} has shape {tuple(found[name])}, the architecture needs {expected[name]}")
    return problems


def read_header(path: str | Path) -> CheckpointHeader:
    """Open a release folder or a ``.safetensors`` file and describe its transformer; no weight is read.

    Raises:
        CheckpointError, ConfigError: missing, truncated or foreign files.
    """
    path = Path(path)
    config = ModelConfig()
    if path.is_dir():
        config_file = path / "config.json"
        if config_file.exists():
            config = read_config(config_file)
        files = _transformer_files(path)
    elif path.is_file():
        files = [path]
    else:
        raise CheckpointError(f"{path} does not exist: give a release folder or a .safetensors file")

    location: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    for file in files:
        with open_safetensors(file) as handle:
            metadata = handle.metadata() or {}
            if not path.is_dir() and "config" in metadata:
                config = _config_from_metadata(metadata["config"], file)
            for name in handle.keys():  # noqa: SIM118 - a safetensors handle is not a mapping
                view = handle.get_slice(name)
                location[name], shapes[name], dtypes[name] = file, tuple(view.get_shape()), view.get_dtype()
    try:
        prefix = find_prefix(shapes)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    own = {name: name[len(prefix) :] for name in shapes if name.startswith(prefix)}
    return CheckpointHeader(
        prefix=prefix,
        shapes={short: shapes[name] for name, short in own.items()},
        dtypes={short: dtypes[name] for name, short in own.items()},
        files={short: location[name] for name, short in own.items()},
        others=tuple(sorted(shapes.keys() - own.keys())),
        config=config,
    )


def load_model(
    path: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> ModalityForcingTransformer:
    """Load a transformer for inference.

    Args:
        path: release folder (``config.json`` beside the weights), single ``.safetensors`` file, or FLUX.2-klein base
            (which has no depth stream).
        device: where the weights go.
        dtype: torch.float32 or torch.bfloat16; None keeps the file's (float16 and 8-bit files become bfloat16).

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
        dtype = torch.float32 if header.dtypes[_LANDMARK] == "F32" else torch.bfloat16
    if dtype not in (torch.float32, torch.bfloat16):
        raise CheckpointError(
            f"dtype {dtype} is not supported: float16 overflows in this model, use bfloat16 or float32"
        )

    with torch.device("meta"):
        model = ModalityForcingTransformer(architecture, schedule=header.config.schedule, dtype=dtype)
    wanted = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    state: dict[str, Tensor] = {}
    for file in sorted(set(header.files.values())):
        with open_safetensors(file) as handle:
            for name in (n for n, f in header.files.items() if f == file):
                # Without a cast or a move the parameter stays a view of the mapped file.
                state[name] = handle.get_tensor(header.prefix + name).to(device, wanted[name])
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(False).eval()


def save_model(model: ModalityForcingTransformer, folder: str | Path, *, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write ``config.json`` and ``model.safetensors`` in the release's layout; :func:`load_model` opens the folder."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architecture": model.config.to_dict(), "schedule": vars(model.schedule)}
    tensors = {
        "dit." + name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.state_dict().items()
    }
    partial = folder / "model.safetensors.part"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.replace(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def open_safetensors(path: Path) -> safe_open:
    """Open a file, saying in one sentence what is wrong where that fails."""
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a complete .safetensors file ({error}): download it again; convert pickled formats first"
        ) from None


def _transformer_files(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.glob("*.safetensors") if not p.name.startswith(_COMPANIONS))
    if not files:
        raise CheckpointError(f"{folder} has no .safetensors file with a transformer")
    single = folder / "model.safetensors"
    return [single] if single in files else files


def _config_from_metadata(text: str, file: Path) -> ModelConfig:
    try:
        values = json.loads(text)
        architecture = values.get("architecture")
        return replace(
            ModelConfig(),
            architecture=None if architecture is None else Architecture.from_dict(architecture),
            schedule=Schedule(**values.get("schedule", {})),
        )
    except (json.JSONDecodeError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file} has an unreadable 'config' in its metadata: {error}") from error
