"""What is in a LoRA file, from its header and a few numbers: rank, alpha, targets, and the models that it fits."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..mforce_core.model.config import Distilled
from ..mforce_core.parts import model_path
from ..mforce_core.settings import BUILT_IN
from ..mforce_core.weights.header import read_header
from ..mforce_core.weights.tensor_files import open_tensors

#: Ends of the two halves' names: PEFT's and diffusers', kohya's.
_DOWN = (".lora_A.weight", ".lora_down.weight", ".lora_A.default.weight")
_UP = (".lora_B.weight", ".lora_up.weight", ".lora_B.default.weight")
_ALPHA = ".alpha"
#: A whole difference, of a LoKr whose other factor is one number.
_WHOLE = (".lokr_w2",)
_PREFIX = re.compile(r"^(base_model\.model\.)?(diffusion_model\.|transformer\.|model\.diffusion_model\.|lora_unet_)?")

_SINGLE = re.compile(r"single_(?:transformer_)?blocks[._](\d+)[._](.+)")
_DOUBLE = re.compile(r"(?:double|transformer)_blocks[._](\d+)[._](.+)")


class _Base(NamedTuple):
    width: int
    double_blocks: int
    single_blocks: int


#: Transformers that a LoRA may be for.
_BASES = {
    "FLUX.2-klein-4B, and what is trained from it": _Base(3072, 5, 20),
    "FLUX.2-klein-9B, and the Modality Forcing release": _Base(4096, 8, 24),
    "FLUX.2-dev": _Base(6144, 8, 48),
}


def is_lora(path: Path) -> bool:
    """Whether a file holds low-rank pairs and no model."""
    if not path.is_file():
        return False
    with open_tensors(path) as file:
        return any(name.endswith(_DOWN) for name in file.keys())  # noqa: SIM118 - not a mapping


@dataclass(frozen=True)
class LoraSummary:
    """What a LoRA file changes, and the models that it fits.

    Attributes:
        path: of the file.
        layers: the number of low-rank pairs.
        whole: the number of whole differences.
        rank, alpha: pairs by value; an alpha that is not stored equals the rank.
        targets: layers by the end of their name.
        width: of the transformer; 0 where no block is targeted.
        double_blocks, single_blocks: that the transformer has at least.
        fits: models of this width with as many blocks.
        parameters, bytes: of the file.
        dtypes: number of tensors by dtype.
        distilled: how a model is to be run that it is added to.
        problems: sentences.
    """

    path: str
    layers: int
    whole: int
    rank: dict[int, int]
    alpha: dict[float, int]
    targets: dict[str, int]
    width: int
    double_blocks: int
    single_blocks: int
    fits: list[str]
    parameters: int
    bytes: int
    dtypes: dict[str, int]
    distilled: Distilled | None
    problems: list[str]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        distilled = None if self.distilled is None else self.distilled.to_dict()
        return {"path": self.path, "kind": "lora"} | vars(self) | {"distilled": distilled}


def describe_lora(path: Path) -> LoraSummary:
    """Describe the file's pairs; no weight is read but the alphas.

    Raises:
        CheckpointError: the file is damaged.
    """
    with open_tensors(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        dtypes = Counter(file.get_slice(name).get_dtype() for name in shapes if not name.endswith(_ALPHA))
        text = (file.metadata() or {}).get("distilled")
        alphas = {name.removesuffix(_ALPHA): float(file.get_tensor(name)) for name in shapes if name.endswith(_ALPHA)}
    down, up = _halves(shapes, _DOWN), _halves(shapes, _UP)
    layers = sorted(down.keys() & up.keys())
    whole = _halves(shapes, _WHOLE)
    problems = [f"{layer} has only one half of its pair" for layer in sorted(down.keys() ^ up.keys())]
    try:
        distilled = None if text is None else Distilled.from_dict(json.loads(text))
    except ValueError as error:
        distilled = None
        problems.append(f"how a model is to be run with it is not readable: {error}")
    problems += [
        f"{layer} has halves of rank {down[layer][0]} and {up[layer][1]}"
        for layer in layers
        if down[layer][0] != up[layer][1]
    ]
    places = [_place(layer) for layer in (*layers, *whole)]
    double, single = (1 + max((n for k, n, _ in places if k == kind), default=-1) for kind in ("double", "single"))
    # A layer of a block has the transformer's width as its input or its output, and it is the smallest of both.
    sides = [(down[layer][1], up[layer][0]) for layer in layers] + [*whole.values()]
    inside = [min(pair) for pair, (kind, _, _) in zip(sides, places, strict=True) if kind]
    found = _Base(min(inside, default=0), double, single)
    return LoraSummary(
        path=str(path),
        layers=len(layers),
        whole=len(whole),
        rank=dict(Counter(down[layer][0] for layer in layers).most_common()),
        alpha=dict(Counter(alphas.get(layer, float(down[layer][0])) for layer in layers).most_common()),
        targets=dict(Counter(leaf for _, _, leaf in places).most_common()),
        width=found.width,
        double_blocks=found.double_blocks,
        single_blocks=found.single_blocks,
        fits=[name for name, base in _bases().items() if _fits(found, base)],
        parameters=sum(down[layer][0] * (down[layer][1] + up[layer][0]) for layer in layers)
        + sum(rows * columns for rows, columns in whole.values()),
        bytes=path.stat().st_size,
        dtypes=dict(dtypes.most_common()),
        distilled=distilled,
        problems=problems,
    )


def _bases() -> dict[str, _Base]:
    """With the built-in model, whose sizes its own file tells."""
    path = model_path(BUILT_IN)
    if not path.exists():
        return _BASES
    sizes = read_header(path).architecture
    return _BASES | {BUILT_IN: _Base(sizes.hidden_size, sizes.depth_double, sizes.depth_single)}


def _halves(shapes: dict[str, tuple[int, ...]], ends: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of one half of each pair, by layer."""
    return {
        name.removesuffix(end): shape
        for name, shape in shapes.items()
        for end in ends
        if name.endswith(end) and len(shape) == 2
    }


def _place(layer: str) -> tuple[str, int, str]:
    """The kind of block, its number and the layer in it; layers outside all blocks have the number -1."""
    name = _PREFIX.sub("", layer)
    for kind, pattern in (("single", _SINGLE), ("double", _DOUBLE)):
        found = pattern.search(name)
        if found is not None:
            return kind, int(found[1]), found[2]
    return "", -1, name


def _fits(found: _Base, base: _Base) -> bool:
    return (
        found.width == base.width
        and found.double_blocks <= base.double_blocks
        and found.single_blocks <= base.single_blocks
    )
