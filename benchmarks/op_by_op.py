"""The transformer's forward pass written op by op in plain PyTorch, as FLUX-like code usually reads: the peer to beat.

Every step between two matrix products is an operation of its own on whole tensors: LayerNorm, then the modulation,
expanded to one vector per token where a sequence has two; heads moved before tokens; the rotation in float32 by a
(L, D / 2, 2, 2) table of 2x2 matrices; streams, and attention with MLP, joined by ``torch.cat``. The weights are those
of a :class:`ModalityForcingTransformer`, so that both can be timed and compared in one process.
"""

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, scaled_dot_product_attention, silu

from ..mforce_core.model.blocks import DoubleStreamBlock, SingleStreamBlock, StreamAttention
from ..mforce_core.model.config import Architecture
from ..mforce_core.model.modulation import timestep_embedding
from ..mforce_core.model.transformer import ModalityForcingTransformer

Vectors = tuple[Tensor, Tensor, Tensor]


def forward(
    model: ModalityForcingTransformer,
    rgb: Tensor,
    depth: Tensor,
    text: Tensor,
    t_rgb: Tensor,
    t_depth: Tensor,
    grid: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """What ``model(rgb, depth, text, t_rgb, t_depth, grid)`` returns; same shapes, units and dtypes."""
    dtype = model.compute_dtype
    vec_img, vec_depth = _time_vectors(model, t_rgb.to(dtype), t_depth.to(dtype))
    img, txt = model.img_in(rgb.to(dtype)), model.txt_in(text.to(dtype))
    if model.lapped is not None:
        depth = model.lapped.lap(depth, grid)
    streams = {"txt": txt, "img": img, "depth": model.depth_in(depth.to(dtype))}
    modulations = {
        "txt": _chunks(model.double_stream_modulation_txt.lin, vec_img, 6),
        "img": _chunks(model.double_stream_modulation_img.lin, vec_img, 6),
        "depth": _chunks(model.double_stream_modulation_depth.lin, vec_depth, 6),
    }
    matrices = rotation_matrices(model.config, txt.shape[1], grid, img.device)
    for block in model.double_blocks:
        assert isinstance(block, DoubleStreamBlock)
        streams = _double_block(block, streams, modulations, matrices)

    n_text, n_image = txt.shape[1], img.shape[1]
    image = _chunks(model.single_stream_modulation.lin, vec_img, 3)
    depths = _chunks(model.single_stream_modulation_depth.lin, vec_depth, 3)
    shift, scale, gate = (
        torch.cat((a.expand(-1, n_text + n_image, -1), b.expand(-1, n_image, -1)), dim=1)
        for a, b in zip(image, depths, strict=True)
    )
    x = torch.cat((streams["txt"], streams["img"], streams["depth"]), dim=1)
    for block in model.single_blocks:
        assert isinstance(block, SingleStreamBlock)
        x = _single_block(block, x, (shift, scale, gate), matrices)
    velocity = _final(model.final_layer, x[:, n_text : n_text + n_image], vec_img)

    x = x[:, n_text + n_image :]
    if model.depth_decoder_blocks:
        shift, scale, gate = _chunks(model.depth_decoder_modulation.lin, vec_depth, 3)
    for block in model.depth_decoder_blocks:
        assert isinstance(block, SingleStreamBlock)
        x = _single_block(block, x, (shift, scale, gate), matrices[n_text + n_image :])
    clean = _final(model.depth_final_layer, x.float(), vec_depth.float())
    return velocity, clean if model.lapped is None else model.lapped.unlap(clean, grid)


def _time_vectors(model: ModalityForcingTransformer, t_rgb: Tensor, t_depth: Tensor) -> tuple[Tensor, Tensor]:
    rgb_sinusoid, depth_sinusoid = timestep_embedding(t_rgb), timestep_embedding(t_depth)
    vec_img, vec_depth = model.time_in(rgb_sinusoid), model.time_in_depth(depth_sinusoid)
    if model.config.cross_stream_timestep_mixing:
        vec_img, vec_depth = (
            vec_img + model.cross_alpha_img * model.time_in_depth_to_img(depth_sinusoid),
            vec_depth + model.cross_alpha_depth * model.time_in_rgb_to_depth(rgb_sinusoid),
        )
    return vec_img, vec_depth


def _chunks(linear: torch.nn.Module, vec: Tensor, count: int) -> tuple[Tensor, ...]:
    return linear(silu(vec))[:, None].chunk(count, dim=-1)


def rotation_matrices(sizes: Architecture, text: int, grid: tuple[int, int], device: torch.device) -> Tensor:
    """(L, D / 2, 2, 2) float32 for [txt, img, depth]."""
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    zeros, tokens = torch.zeros(text), grid[0] * grid[1]
    positions = [torch.stack((zeros, zeros, zeros, torch.arange(text).float()), dim=-1)]
    for stream in (0.0, 1.0):
        axes = (torch.full((tokens,), stream), rows.flatten(), columns.flatten(), torch.zeros(tokens))
        positions.append(torch.stack([axis.float() for axis in axes], dim=-1))
    ids, angles = torch.cat(positions).to(device), []
    for axis, dim in enumerate(sizes.axes_dim):
        omega = sizes.theta ** -(torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim)
        angles.append(ids[:, axis, None].double() * omega)
    angle = torch.cat(angles, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2)).float()


def rotate(x: Tensor, matrices: Tensor) -> Tensor:
    pairs = x.float().unflatten(-1, (-1, 1, 2))
    return (matrices[..., 0] * pairs[..., 0] + matrices[..., 1] * pairs[..., 1]).flatten(-2).type_as(x)


def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * scale


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return (1 + scale) * layer_norm(x, x.shape[-1:], eps=1e-6) + shift


def _heads(qkv: Tensor, block: StreamAttention | SingleStreamBlock) -> Vectors:
    """(B, L, 3 C) -> q, k, v, each (B, H, L, D), q and k normalized."""
    q, k, v = qkv.unflatten(-1, (3, block.heads, -1)).permute(2, 0, 3, 1, 4)
    return rms_norm(q, block.norm.query_norm.scale), rms_norm(k, block.norm.key_norm.scale), v


def _attend(q: Tensor, k: Tensor, v: Tensor, matrices: Tensor) -> Tensor:
    attended = scaled_dot_product_attention(rotate(q, matrices), rotate(k, matrices), v)
    return attended.transpose(1, 2).flatten(2)


def swiglu(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, dim=-1)
    return silu(gate) * value


def _double_block(
    block: DoubleStreamBlock, streams: dict[str, Tensor], modulations: dict[str, tuple[Tensor, ...]], matrices: Tensor
) -> dict[str, Tensor]:
    heads = []
    for name, x in streams.items():
        shift, scale, *_ = modulations[name]
        attention = block.get_submodule(f"{name}_attn")
        assert isinstance(attention, StreamAttention)
        heads.append(_heads(attention.qkv(modulate(x, shift, scale)), attention))
    q, k, v = (torch.cat(parts, dim=2) for parts in zip(*heads, strict=True))
    attended = _attend(q, k, v, matrices).split([x.shape[1] for x in streams.values()], dim=1)
    out = {}
    for (name, x), y in zip(streams.items(), attended, strict=True):
        _, _, gate, shift, scale, second_gate = modulations[name]
        x = x + gate * block.get_submodule(f"{name}_attn.proj")(y)
        mlp = block.get_submodule(f"{name}_mlp")
        hidden = mlp.get_submodule("0")(modulate(x, shift, scale))
        out[name] = x + second_gate * mlp.get_submodule("2")(swiglu(hidden))
    return out


def _single_block(block: SingleStreamBlock, x: Tensor, vectors: Vectors, matrices: Tensor) -> Tensor:
    shift, scale, gate = vectors
    qkv, mlp = block.linear1(modulate(x, shift, scale)).split(block.widths, dim=-1)
    attended = _attend(*_heads(qkv, block), matrices)
    return x + gate * block.linear2(torch.cat((attended, swiglu(mlp)), dim=-1))


def _final(layer: torch.nn.Module, x: Tensor, vec: Tensor) -> Tensor:
    shift, scale = _chunks(layer.get_submodule("adaLN_modulation.1"), vec, 2)
    return layer.get_submodule("linear")(modulate(x, shift, scale))
