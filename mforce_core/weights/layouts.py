"""The forms in which a FLUX.2-family transformer is stored: prefixes, wrappers, names of norms, diffusers' naming.

A layout says for every weight, under this project's name, which stored tensors it is made of. docs/checkpoints.md lists
all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .tensor_files import CheckpointError

# A tensor that every FLUX.2-family transformer has: where it sits tells the prefix.
LANDMARK = "img_in.weight"
_DIFFUSERS_LANDMARK = "x_embedder.weight"

#: Parts beside the transformer that a one-file checkpoint may hold.
COMPANIONS = (
    *("vae.", "first_stage_model.", "autoencoder."),
    *("text_encoders.", "text_encoder.", "conditioner.", "cond_stage_model."),
)
_AVERAGES = ("ema.", "model_ema.", "ema_model.")

# What torch.compile, FSDP and activation checkpointing put into the names of the modules that they wrap.
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_NORM = re.compile(r"(\.(?:query_norm|key_norm))\.weight$")

#: Parts of names that tell other kinds of files, and what such a file is.
_FOREIGN: tuple[tuple[str, str], ...] = (
    (r"\.(wscales|smooth_factor|smooth_factor_orig)$", "a Nunchaku (SVDQuant) file, whose layers only Nunchaku's own"
     " nodes can run: use the bf16, fp8 or int8 file"),
    (r"\.(qweight|qzeros)$", "quantized by GPTQ or AWQ, which is not read: use the bf16, fp8 or int8 file"),
    (r"\.weight\.(absmax|quant_map|quant_state\.bitsandbytes__\w+)$", "quantized by bitsandbytes, which is not read:"
     " use the bf16, fp8 or int8 file"),
    (r"(\.lora_[AB]\.|\.lora_(up|down)\.|\.lora_[AB]$|\.hada_w1_a$|\.lokr_w)", "a LoRA, not a model: load the model"
     " first and the LoRA onto it"),
    (r"(^|\.)vector_in\.in_layer\.weight$|time_text_embed\.text_embedder", "a FLUX.1 transformer; the depth stream"
     " belongs to FLUX.2"),
    (r"(^|\.)txt_norm\.weight$", "a Qwen-Image transformer"),
    (r"(^|\.)input_blocks\.0\.0\.weight$|down_blocks\.0\.", "a U-Net (Stable Diffusion)"),
    (r"(^|\.)(encoder|decoder)\.(conv_in|mid|up|down)\b", "an autoencoder: give it as the VAE"),
    (r"(^|\.)layers\.0\.(self_attn|mlp)\.", "a language model: give it as the text encoder"),
)  # fmt: skip


class Source(NamedTuple):
    """The stored tensors whose rows, one below the other, are a weight; ``swapped``: its two halves change places."""

    parts: tuple[tuple[Path, str], ...]
    swapped: bool = False

    def read(self, get: Callable[[Path, str], Tensor]) -> Tensor:
        """The weight, from what ``get`` gives for a file and a stored name."""
        tensors = [get(file, name) for file, name in self.parts]
        whole = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        return torch.cat(whole.chunk(2)[::-1]) if self.swapped else whole


class Layout(NamedTuple):
    """``prefix`` of the stored names, the sources by name, and the stored names that belong to something else."""

    prefix: str
    sources: dict[str, Source]
    others: tuple[str, ...]


def find_layout(location: Mapping[str, Path]) -> Layout:
    """How the transformer among the tensors of some files is stored.

    Args:
        location: the file of every stored tensor.

    Raises:
        CheckpointError: there is none, another model's, or two.
    """
    prefix, diffusers = _find_prefix(location)
    own = {stored: stored[len(prefix) :] for stored in location if stored.startswith(prefix)}
    own = {stored: name for stored, name in own.items() if not name.startswith((*COMPANIONS, *_AVERAGES))}
    _refuse_foreign(own.values())
    plain: dict[str, str] = {}
    for stored, name in own.items():
        name = _NORM.sub(r"\1.scale", _WRAPPERS.sub("", name))
        if name in plain:
            raise CheckpointError(f"it holds the tensor {name} twice, as {plain[name]} and as {stored}")
        plain[name] = stored
    if diffusers:
        sources = _from_diffusers(plain, location)
    else:
        sources = {name: Source(((location[stored], stored),)) for name, stored in plain.items()}
    return Layout(prefix, sources, tuple(sorted(location.keys() - own.keys())))


def _find_prefix(names: Iterable[str]) -> tuple[str, bool]:
    """The prefix of the transformer's tensors, and whether the names after it are those of diffusers."""
    names = list(names)
    plain = {_WRAPPERS.sub("", name) for name in names}
    found: dict[str, bool] = {}
    for name in names:
        for landmark, diffusers in ((LANDMARK, False), (_DIFFUSERS_LANDMARK, True)):
            if name == landmark or name.endswith(f".{landmark}"):
                prefix = name.removesuffix(landmark)
                twin = _WRAPPERS.sub("", prefix) + "single_stream_modulation.linear.weight"
                if not prefix.startswith((*COMPANIONS, *_AVERAGES)) and (not diffusers or twin in plain):
                    found[prefix] = diffusers
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        listed = " and ".join(sorted(repr(prefix) for prefix in found))
        raise CheckpointError(f"it holds {len(found)} transformers, under the prefixes {listed}: keep one")
    _refuse_foreign(names)
    some = ", ".join(sorted(names)[:2]) or "nothing"
    raise CheckpointError(
        f"no Modality Forcing or FLUX.2 transformer here: no tensor is called {LANDMARK!r}, with or without a prefix "
        f"(it holds {some[:160]})"
    )


def _refuse_foreign(names: Iterable[str]) -> None:
    names = list(names)
    for pattern, what in _FOREIGN:
        if any(re.search(pattern, name) for name in names):
            raise CheckpointError(f"no Modality Forcing or FLUX.2 transformer that can be read here: this is {what}")


# Names of diffusers' Flux2Transformer2DModel and ours, without ".weight".
_DIFFUSERS = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_guidance_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_guidance_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_guidance_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_guidance_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
    "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
    "single_stream_modulation.linear": "single_stream_modulation.lin",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_DIFFUSERS_BLOCKS = {
    "transformer_blocks": (
        "double_blocks",
        {
            "attn.to_out.0": "img_attn.proj.weight",
            "attn.to_add_out": "txt_attn.proj.weight",
            "attn.norm_q": "img_attn.norm.query_norm.scale",
            "attn.norm_k": "img_attn.norm.key_norm.scale",
            "attn.norm_added_q": "txt_attn.norm.query_norm.scale",
            "attn.norm_added_k": "txt_attn.norm.key_norm.scale",
            "ff.linear_in": "img_mlp.0.weight",
            "ff.linear_out": "img_mlp.2.weight",
            "ff_context.linear_in": "txt_mlp.0.weight",
            "ff_context.linear_out": "txt_mlp.2.weight",
        },
    ),
    "single_transformer_blocks": (
        "single_blocks",
        {
            "attn.to_qkv_mlp_proj": "linear1.weight",
            "attn.to_out": "linear2.weight",
            "attn.norm_q": "norm.query_norm.scale",
            "attn.norm_k": "norm.key_norm.scale",
        },
    ),
}
#: Three matrices of a block that are one here.
_DIFFUSERS_QKV = {
    "img_attn.qkv.weight": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv.weight": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}
# The final modulation is (scale, shift) there and (shift, scale) here.
_SWAPPED = "final_layer.adaLN_modulation.1.weight"


def _from_diffusers(plain: Mapping[str, str], location: Mapping[str, Path]) -> dict[str, Source]:
    """Sources by our names; tensors that are not among the known ones keep theirs."""
    sources: dict[str, Source] = {}
    qkv = {name for names in _DIFFUSERS_QKV.values() for name in names}
    blocks: set[tuple[str, str]] = set()
    for name, stored in plain.items():
        root, _, rest = name.partition(".")
        part = ((location[stored], stored),)
        layer = name.removesuffix(".weight")
        if root in _DIFFUSERS_BLOCKS:
            ours, names = _DIFFUSERS_BLOCKS[root]
            number, _, layer = rest.removesuffix(".weight").partition(".")
            if layer in names:
                sources[f"{ours}.{number}.{names[layer]}"] = Source(part)
                continue
            if root == "transformer_blocks" and layer in qkv:
                blocks.add((root, number))
                continue
        elif layer in _DIFFUSERS:
            own = f"{_DIFFUSERS[layer]}.weight"
            sources[own] = Source(part, swapped=own == _SWAPPED)
            continue
        sources[name] = Source(part)
    for root, number in blocks:
        for own, split in _DIFFUSERS_QKV.items():
            stored_names = [plain.get(f"{root}.{number}.{name}.weight") for name in split]
            if None not in stored_names:
                parts = tuple((location[stored], stored) for stored in stored_names if stored is not None)
                sources[f"double_blocks.{number}.{own}"] = Source(parts)
    return sources
