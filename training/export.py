"""From a run's averaged weights to files: a model folder, and the LoRA beside it."""

import json
from pathlib import Path
from shutil import copyfile

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..mforce_core.encoders.autoencoder_files import ONE_FILE_NAMES, autoencoder_files, read_tensors
from ..mforce_core.encoders.words import WORDS_FILE, load_text_encoder
from ..mforce_core.model.config import Distilled
from ..mforce_core.model.transformer import ModalityForcingTransformer
from ..mforce_core.release import PATCH_SIZE
from ..mforce_core.weights.bundle import locate, vae_prefix
from ..mforce_core.weights.checkpoint import save_model
from ..mforce_core.weights.named_parts import Part, named_part, portable
from ..mforce_core.weights.update import UPDATE_FILE
from .config import TrainConfig
from .data.encode import ENCODE_REPORT
from .lora import merge_lora, save_lora, split_lora
from .optimizer import MovingAverage
from .processes import Processes

#: In the run's folder.
MODEL, LORA = "model", UPDATE_FILE


def export(
    config: TrainConfig,
    model: ModalityForcingTransformer,
    average: MovingAverage,
    grid: tuple[int, int],
    processes: Processes,
) -> Path:
    """Write ``model/``, which :func:`..mforce_core.load_model` opens; all processes take part, the first one writes.

    ``grid`` (h, w) tokens of the pictures that it was trained on.

    With LoRA also ``lora.safetensors``; ``model/`` has it merged, unless ``lora.merge`` is off.
    """
    state = {name: _whole(average.tensors.get(name, tensor)) for name, tensor in model.state_dict().items()}
    out = config.out / MODEL
    if processes.first:
        weights, pairs = split_lora(state)
        distilled = distilled_of(config)
        if pairs:
            save_lora(pairs, config.lora, config.out / LORA, distilled)
            distilled = distilled if config.lora.merge else None
            weights = merge_lora(weights, pairs, config.lora) if config.lora.merge else weights
        with torch.device("meta"):
            whole = ModalityForcingTransformer(model.config, schedule=model.schedule, dtype=torch.bfloat16)
        whole.load_state_dict(weights, assign=True)
        height, width = (side * PATCH_SIZE for side in grid)
        parts = {part: portable(path) for part, path in parts_of(config).items()}
        save_model(whole, out, dtype=torch.bfloat16, image_size=(width, height), parts=parts, distilled=distilled)
        if config.copy_parts:
            _copy_parts(config, out)
    processes.wait()
    return out


def distilled_of(config: TrainConfig) -> Distilled | None:
    """How a student is to be run; None for other models."""
    if config.stage != "distill":
        return None
    chosen = config.distillation
    return Distilled(chosen.steps, chosen.path, chosen.sampler, chosen.i2d_steps, chosen.d2i_steps)


def parts_of(config: TrainConfig) -> dict[Part, Path]:
    """The text encoder and the autoencoder that a run used, as far as it knows them.

    The autoencoder of encoded data is the one that ``mforce data encode`` noted, where that still exists; what nothing
    else names is the base's.
    """
    noted = [folder / ENCODE_REPORT for folder in config.data.parts()]
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in noted if path.is_file()]
    found: dict[Part, Path] = {}
    heldout = None if config.heldout is None else config.heldout.autoencoder
    named: dict[Part, Path | None] = {
        "text_encoder": config.text_encoder,
        "vae": config.data.autoencoder or heldout,
    }
    for part, given in named.items():
        names = [report["parts"][part] for report in reports if report.get("parts", {}).get(part)]
        path = given or next((Path(name) for name in names), None) or _of_base(config.base, part)
        if path is not None and path.exists():
            found[part] = path
    return found


def _of_base(base: Path | None, part: Part) -> Path | None:
    """A part that lies in the base's folder, or that its configuration names."""
    if base is None or not base.is_dir():
        return None
    beside = (base / WORDS_FILE).exists() if part == "text_encoder" else bool(autoencoder_files(base))
    try:
        return base if beside else named_part(base, part)
    except ValueError:  # it names what is no longer there: a run that is done must not fail for it
        return None


def _copy_parts(config: TrainConfig, out: Path) -> None:
    """What is small enough to lie beside every model: not Qwen3, and of a one-file checkpoint that part alone."""
    parts = parts_of(config)
    words, vae = parts.get("text_encoder"), parts.get("vae")
    if words is not None and (words.is_file() or (words / WORDS_FILE).exists()):
        load_text_encoder(words).save(out / WORDS_FILE)
    files = [] if vae is None else autoencoder_files(vae)
    if vae is not None and files and vae_prefix(locate(files[0])) is not None:
        tensors = {name: tensor.contiguous() for name, tensor in read_tensors(vae).items()}
        save_file(tensors, out / ONE_FILE_NAMES[0])
        return
    for file in files:
        copyfile(file, out / (file.name if len(files) > 1 else ONE_FILE_NAMES[0]))


def _whole(tensor: Tensor) -> Tensor:
    """On the CPU; gathered from all processes where it is sharded."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()
