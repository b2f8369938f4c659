"""The transformer: FLUX.2-klein's text and image streams plus a depth stream, one joint attention over the three.

Module and parameter names are the checkpoint's. Linear layers (all without bias) come from an injectable
``operations`` namespace, so that a host can offload, cast or quantize them; everything between them is a call into
:mod:`..kernels`.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ...kernels import (
    Modulation,
    PackedHeads,
    Segment,
    adaln,
    attention,
    concat_swiglu,
    gated_residual,
    gated_residual_adaln,
    may_overwrite,
    qk_norm_rope,
    rope_table,
    swiglu,
)
from .config import TIME_FREQUENCIES, Architecture, Schedule

# The first position axis tells the streams apart; text counts on the last axis instead.
RGB_AXIS, DEPTH_AXIS = 0.0, 1.0

#: Rotation tables that a model keeps: a few sizes in turn, not every size ever seen.
_KEPT_TABLES = 4


class Modulations(NamedTuple):
    """Everything in a call that depends on its noise levels alone, R rows; one row may serve a whole batch.

    Each is what a modulation's Linear wrote, (R, count * C); None where the model, or the call, has no such part.
    """

    txt: Tensor
    img: Tensor
    depth: Tensor | None
    single: Tensor
    single_depth: Tensor | None
    decoder: Tensor | None
    final: Tensor
    depth_final: Tensor | None

    def rows(self, start: int, stop: int) -> "Modulations":
        present = {name: vectors for name, vectors in self._asdict().items() if vectors is not None}
        return self._replace(**{name: vectors[start:stop] for name, vectors in present.items()})


class ModalityForcingTransformer(nn.Module):
    """Denoiser of an RGB latent and a depth map that each have their own noise level.

    Args:
        config: sizes; with ``depth_channels == 0`` it is a plain FLUX.2 text-to-image transformer.
        schedule: timestep shift that the weights were trained for, used by the sampler.
        operations: namespace with ``Linear``; ``torch.nn`` or a host's own.
        dtype: of the weights and of the computation. The depth head is float32 whatever this is: in bfloat16 its
            output shows bands.
    """

    def __init__(
        self,
        config: Architecture,
        *,
        schedule: Schedule | None = None,
        operations: Any = nn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.schedule = schedule or Schedule()
        self.compute_dtype = dtype or torch.get_default_dtype()
        self._tables: dict[tuple, Tensor] = {}
        size = config.hidden_size
        factory = {"operations": operations, "device": device, "dtype": dtype}

        self.img_in = _linear(config.in_channels, size, **factory)
        self.txt_in = _linear(config.context_in_dim, size, **factory)
        self.time_in = TimeEmbedder(size, **factory)
        if config.use_guidance_embed:
            self.guidance_in = TimeEmbedder(size, **factory)
        self.double_stream_modulation_img = ModulationProjection(size, 2, **factory)
        self.double_stream_modulation_txt = ModulationProjection(size, 2, **factory)
        self.single_stream_modulation = ModulationProjection(size, 1, **factory)
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(config, **factory) for _ in range(config.depth_double))
        self.single_blocks = nn.ModuleList(SingleStreamBlock(config, **factory) for _ in range(config.depth_single))
        self.final_layer = FinalLayer(size, config.in_channels, **factory)
        if not config.has_depth:
            return

        self.depth_in = _linear(config.depth_channels, size, **factory)
        self.time_in_depth = TimeEmbedder(size, **factory)
        if config.cross_stream_timestep_mixing:
            self.time_in_depth_to_img = TimeEmbedder(size, **factory)
            self.time_in_rgb_to_depth = TimeEmbedder(size, **factory)
            self.cross_alpha_img = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))
            self.cross_alpha_depth = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))
        self.double_stream_modulation_depth = ModulationProjection(size, 2, **factory)
        self.single_stream_modulation_depth = ModulationProjection(size, 1, **factory)
        if config.depth_decoder_num_layers:
            self.depth_decoder_modulation = ModulationProjection(size, 1, **factory)
        self.depth_decoder_blocks = nn.ModuleList(
            SingleStreamBlock(config, **factory) for _ in range(config.depth_decoder_num_layers)
        )
        self.depth_final_layer = FinalLayer(
            size, config.depth_channels, operations=operations, device=device, dtype=torch.float32
        )

    def forward(
        self,
        rgb: Tensor,
        depth: Tensor | None,
        text: Tensor,
        t_rgb: Tensor | None,
        t_depth: Tensor | None,
        grid: tuple[int, int],
        guidance: Tensor | None = None,
        *,
        modulations: Modulations | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Predict the RGB velocity and the clean depth.

        Args:
            rgb: noisy RGB tokens, (B, N, in_channels), row-major over the grid.
            depth: noisy depth tokens, (B, N, depth_channels); None runs the text-to-image half alone, which is the
                FLUX.2 base model.
            text: text features, (B, T, context_in_dim).
            t_rgb, t_depth: noise levels, (B,), 1 = pure noise, 0 = clean.
            grid: (h, w) with h * w = N.
            guidance: (B,), for bases that embed a guidance scale.
            modulations: from :meth:`modulations`, B rows or one, instead of the noise levels and the guidance.

        Returns:
            RGB velocity eps - x_0, (B, N, in_channels) in the compute dtype, and the clean depth x_0,
            (B, N, depth_channels) in float32 (None where ``depth`` is None).

        Raises:
            ValueError: shapes that do not fit the architecture or each other.
        """
        self._check(rgb, depth, text, grid)
        if modulations is None:
            if depth is not None and t_depth is None:
                raise ValueError("depth tokens need their noise level t_depth")
            modulations = self.modulations(t_rgb, None if depth is None else t_depth, guidance)
        dtype = self.compute_dtype
        img, txt = self.img_in(rgb.to(dtype)), self.txt_in(text.to(dtype))
        streams = {"txt": txt, "img": img}
        vectors = {"txt": _modulations_of(modulations.txt, 2), "img": _modulations_of(modulations.img, 2)}
        if depth is not None:
            streams["depth"] = self.depth_in(depth.to(dtype))
            vectors["depth"] = _modulations_of(modulations.depth, 2)
        table = self._rope_table(txt.shape[1], grid, with_depth=depth is not None, device=img.device)

        for block in self.double_blocks:
            streams = block(streams, vectors, table)

        txt_img = txt.shape[1] + img.shape[1]
        segments = [Segment(txt_img, *_modulations_of(modulations.single, 1))]
        if depth is not None:
            segments.append(Segment(img.shape[1], *_modulations_of(modulations.single_depth, 1)))
        x = _run_blocks(self.single_blocks, torch.cat(list(streams.values()), dim=1), segments, table)
        velocity = self.final_layer(x[:, txt.shape[1] : txt_img], modulations.final)
        if depth is None:
            return velocity, None

        x = x[:, txt_img:]
        if self.depth_decoder_blocks:
            segments = [Segment(x.shape[1], *_modulations_of(modulations.decoder, 1))]
            x = _run_blocks(self.depth_decoder_blocks, x, segments, table[:, txt_img:])
        return velocity, self.depth_final_layer(x.float(), modulations.depth_final)

    def modulations(self, t_rgb: Tensor | None, t_depth: Tensor | None, guidance: Tensor | None = None) -> Modulations:
        """Modulation vectors of every block at the noise levels (R,), of one call or of a whole rollout at once.

        Args:
            t_rgb, t_depth: noise levels, (R,); ``t_depth`` None leaves the depth stream out.
            guidance: (R,), for bases that embed a guidance scale.

        Raises:
            ValueError: no ``t_rgb``, or no ``guidance`` where the model embeds it.
        """
        if t_rgb is None:
            raise ValueError("the model needs the noise level t_rgb")
        if self.config.use_guidance_embed and guidance is None:
            raise ValueError("this checkpoint embeds a guidance scale: pass guidance (B,)")
        vec_img, vec_depth = self._time_vectors(t_rgb.to(self.compute_dtype), t_depth, guidance)
        with_depth = t_depth is not None
        decoder = with_depth and len(self.depth_decoder_blocks) > 0
        return Modulations(
            txt=self.double_stream_modulation_txt(vec_img),
            img=self.double_stream_modulation_img(vec_img),
            depth=self.double_stream_modulation_depth(vec_depth) if with_depth else None,
            single=self.single_stream_modulation(vec_img),
            single_depth=self.single_stream_modulation_depth(vec_depth) if with_depth else None,
            decoder=self.depth_decoder_modulation(vec_depth) if decoder else None,
            final=self.final_layer.adaLN_modulation(vec_img),
            depth_final=self.depth_final_layer.adaLN_modulation(vec_depth.float()) if with_depth else None,
        )

    def _check(
        self,
        rgb: Tensor,
        depth: Tensor | None,
        text: Tensor,
        grid: tuple[int, int],
    ) -> None:
        config, tokens = self.config, grid[0] * grid[1]
        expected = [("rgb", rgb, tokens, config.in_channels), ("text", text, None, config.context_in_dim)]
        if depth is not None:
            if not config.has_depth:
                raise ValueError("this checkpoint is a text-to-image base without a depth stream")
            expected.append(("depth", depth, tokens, config.depth_channels))
        for name, tensor, length, channels in expected:
            if tensor.ndim != 3 or tensor.shape[2] != channels or length not in (None, tensor.shape[1]):
                wanted = f"(B, {'T' if length is None else length}, {channels})"
                raise ValueError(f"{name} must be {wanted} for the grid {grid}, got {tuple(tensor.shape)}")

    def _time_vectors(self, t_rgb: Tensor, t_depth: Tensor | None, guidance: Tensor | None) -> tuple[Tensor, Tensor]:
        """Conditioning vectors (B, C) of the image and depth streams; cross-stream mixing adds the other's time."""
        rgb_sinusoid = timestep_embedding(t_rgb)
        vec_img = self.time_in(rgb_sinusoid)
        if self.config.use_guidance_embed and guidance is not None:
            vec_img = vec_img + self.guidance_in(timestep_embedding(guidance.to(t_rgb.dtype)))
        if t_depth is None:
            return vec_img, vec_img
        depth_sinusoid = timestep_embedding(t_depth.to(t_rgb.dtype))
        vec_depth = self.time_in_depth(depth_sinusoid)
        if self.config.cross_stream_timestep_mixing:
            alpha_img, alpha_depth = self.cross_alpha_img.to(t_rgb), self.cross_alpha_depth.to(t_rgb)
            vec_img = vec_img + alpha_img * self.time_in_depth_to_img(depth_sinusoid)
            vec_depth = vec_depth + alpha_depth * self.time_in_rgb_to_depth(rgb_sinusoid)
        return vec_img, vec_depth

    def _rope_table(self, text_length: int, grid: tuple[int, int], *, with_depth: bool, device: torch.device) -> Tensor:
        """(2, T + N or T + 2N, D / 2) for [txt, img, depth], kept from call to call except where a tracer watches."""
        config = self.config
        if torch.compiler.is_compiling():
            return _rope_table(text_length, grid, with_depth, config.axes_dim, config.theta, device)
        key = (text_length, tuple(grid), with_depth, device)
        table = self._tables.pop(key, None)
        if table is None:
            with torch.inference_mode(False):  # training may follow in the same process
                table = _rope_table(text_length, grid, with_depth, config.axes_dim, config.theta, device)
            if type(table) is not Tensor:
                return table
            if len(self._tables) >= _KEPT_TABLES:
                del self._tables[next(iter(self._tables))]
        self._tables[key] = table
        return table


def _rope_table(
    text_length: int,
    grid: tuple[int, int],
    with_depth: bool,
    axes_dim: tuple[int, ...],
    theta: float,
    device: torch.device,
) -> Tensor:
    text = torch.zeros(text_length, 4, device=device)
    text[:, 3] = torch.arange(text_length, device=device)
    rows = torch.arange(grid[0], device=device).repeat_interleave(grid[1])
    columns = torch.arange(grid[1], device=device).repeat(grid[0])
    image = torch.zeros(grid[0] * grid[1], 4, device=device)
    image[:, 0], image[:, 1], image[:, 2] = RGB_AXIS, rows, columns
    positions = [text, image]
    if with_depth:
        depth = image.clone()
        depth[:, 0] = DEPTH_AXIS
        positions.append(depth)
    return rope_table(torch.cat(positions), axes_dim, theta)


def timestep_embedding(t: Tensor) -> Tensor:
    """Sinusoidal embedding of a noise level, (B,) -> (B, 256), cosines first.

    ``t * 1000`` is rounded to t's dtype on purpose: the released weights were trained with that rounding.
    """
    half = TIME_FREQUENCIES // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = (t * 1000.0)[:, None].float() * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1).to(t.dtype)


def _linear(in_features: int, out_features: int, *, operations: Any, device: Any, dtype: Any) -> nn.Module:
    return operations.Linear(in_features, out_features, bias=False, device=device, dtype=dtype)


def _modulations_of(vectors: Tensor | None, count: int) -> list[Modulation]:
    """``count`` modulations of three (R, C) vectors from what their Linear wrote, (R, 3 * count * C)."""
    assert vectors is not None
    parts = vectors.chunk(3 * count, dim=-1)
    return [Modulation(*parts[3 * i : 3 * i + 3]) for i in range(count)]


def _run_blocks(blocks: nn.ModuleList, x: Tensor, segments: list[Segment], table: Tensor) -> Tensor:
    """Single-stream blocks share one modulation, so a block's residual and the next one's adaLN are one step.

    x may be overwritten.
    """
    inplace, last = may_overwrite(x), len(blocks) - 1
    following = [segment.modulation for segment in segments]
    h = adaln(x, segments) if len(blocks) else x
    for index, block in enumerate(blocks):
        y = block(h, table)
        if index == last:
            x = gated_residual(x, y, segments, inplace=inplace)
        else:
            x, h = gated_residual_adaln(x, y, segments, following, inplace=inplace)
    return x


class TimeEmbedder(nn.Module):
    """(B, 256) sinusoids -> (B, C)."""

    def __init__(self, size: int, **factory: Any) -> None:
        super().__init__()
        self.in_layer = _linear(TIME_FREQUENCIES, size, **factory)
        self.out_layer = _linear(size, size, **factory)

    def forward(self, sinusoid: Tensor) -> Tensor:
        return self.out_layer(silu(self.in_layer(sinusoid)))


class ModulationProjection(nn.Module):
    """(B, C) conditioning -> ``count`` modulations of three (B, C) vectors, packed in (B, 3 * count * C)."""

    def __init__(self, size: int, count: int, **factory: Any) -> None:
        super().__init__()
        self.lin = _linear(size, 3 * count * size, **factory)

    def forward(self, vec: Tensor) -> Tensor:
        return self.lin(silu(vec))


class _Scale(nn.Module):
    """The learned scale of an RMSNorm over one head."""

    def __init__(self, head_dim: int, device: Any, dtype: Any) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(head_dim, device=device, dtype=dtype))


class QKNorm(nn.Module):
    """Scales of the norms on queries and keys; :func:`..kernels.qk_norm_rope` applies them."""

    def __init__(self, head_dim: int, device: Any, dtype: Any) -> None:
        super().__init__()
        self.query_norm = _Scale(head_dim, device, dtype)
        self.key_norm = _Scale(head_dim, device, dtype)

    def packed(self, qkv: Tensor, heads: int) -> PackedHeads:
        """(B, L, 3 C) from a Linear -> what the kernel takes."""
        return PackedHeads(qkv.unflatten(-1, (3, heads, -1)), self.query_norm.scale, self.key_norm.scale)


class StreamAttention(nn.Module):
    """One stream's share of the joint attention: its q, k, v before it, its projection after it."""

    def __init__(self, config: Architecture, *, operations: Any, device: Any, dtype: Any) -> None:
        super().__init__()
        factory = {"operations": operations, "device": device, "dtype": dtype}
        self.heads = config.num_heads
        self.qkv = _linear(config.hidden_size, 3 * config.hidden_size, **factory)
        self.norm = QKNorm(config.head_dim, device, dtype)
        self.proj = _linear(config.hidden_size, config.hidden_size, **factory)

    def packed_heads(self, h: Tensor) -> PackedHeads:
        return self.norm.packed(self.qkv(h), self.heads)


class GatedMLP(nn.Sequential):
    """Linear, SwiGLU, Linear; indices 0 and 2 carry the checkpoint's weights."""

    def __init__(self, config: Architecture, **factory: Any) -> None:
        super().__init__(
            _linear(config.hidden_size, 2 * config.mlp_dim, **factory),
            SwiGLU(),
            _linear(config.mlp_dim, config.hidden_size, **factory),
        )


class SwiGLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return swiglu(x)


class DoubleStreamBlock(nn.Module):
    """Each stream has its own weights; attention is joint over [txt, img, depth]."""

    def __init__(self, config: Architecture, **factory: Any) -> None:
        super().__init__()
        names = ("img", "txt", "depth") if config.has_depth else ("img", "txt")
        for name in names:
            self.add_module(f"{name}_attn", StreamAttention(config, **factory))
            self.add_module(f"{name}_mlp", GatedMLP(config, **factory))

    def forward(
        self, streams: dict[str, Tensor], modulations: dict[str, list[Modulation]], table: Tensor
    ) -> dict[str, Tensor]:
        """(B, L, C) tokens of each stream, in the order of the sequence, after the block; they may be overwritten."""
        heads = [
            self._attention(name).packed_heads(adaln(x, [Segment(x.shape[1], modulations[name][0])]))
            for name, x in streams.items()
        ]
        q, k, v = qk_norm_rope(heads, table)
        del heads
        attended = attention(q, k, v).split([x.shape[1] for x in streams.values()], dim=1)

        out = {}
        for (name, x), y in zip(streams.items(), attended, strict=True):
            first, second = modulations[name]
            segments, inplace = [Segment(x.shape[1], first)], may_overwrite(x)
            x, h = gated_residual_adaln(x, self._attention(name).proj(y), segments, [second], inplace=inplace)
            y = self.get_submodule(f"{name}_mlp")(h)
            out[name] = gated_residual(x, y, [Segment(x.shape[1], second)], inplace=inplace)
        return out

    def _attention(self, name: str) -> "StreamAttention":
        module = self.get_submodule(f"{name}_attn")
        assert isinstance(module, StreamAttention)
        return module


class SingleStreamBlock(nn.Module):
    """Attention and MLP side by side on the concatenated sequence, one Linear in and one out."""

    def __init__(self, config: Architecture, *, operations: Any, device: Any, dtype: Any) -> None:
        super().__init__()
        factory = {"operations": operations, "device": device, "dtype": dtype}
        size, mlp = config.hidden_size, config.mlp_dim
        self.heads = config.num_heads
        self.widths, self.joined_width = [3 * size, 2 * mlp], size + mlp
        self.linear1 = _linear(size, sum(self.widths), **factory)
        self.linear2 = _linear(self.joined_width, size, **factory)
        self.norm = QKNorm(config.head_dim, device, dtype)

    def forward(self, h: Tensor, table: Tensor) -> Tensor:
        """(B, L, C) modulated tokens -> (B, L, C) the residual branch before its gate."""
        qkv, mlp = self.linear1(h).split(self.widths, dim=-1)
        inplace = may_overwrite(h)
        q, k, v = qk_norm_rope([self.norm.packed(qkv, self.heads)], table, inplace=inplace)
        if not inplace:
            return self.linear2(concat_swiglu(attention(q, k, v), mlp))
        joined = h.new_empty(*h.shape[:2], self.joined_width)
        attended, gated = joined.split([h.shape[2], self.joined_width - h.shape[2]], dim=-1)
        attention(q, k, v, out=attended)
        swiglu(mlp, out=gated)
        return self.linear2(joined)


class FinalLayer(nn.Module):
    """adaLN (shift first, then scale; no gate), then the projection to the output channels."""

    def __init__(self, size: int, out_channels: int, **factory: Any) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), _linear(size, 2 * size, **factory))
        self.linear = _linear(size, out_channels, **factory)

    def forward(self, x: Tensor, vectors: Tensor) -> Tensor:
        """(B, L, C) tokens and what ``adaLN_modulation`` made of the conditioning, (B or 1, 2 C) -> (B, L, out)."""
        shift, scale = vectors.chunk(2, dim=-1)
        return self.linear(adaln(x, [Segment(x.shape[1], Modulation(shift, scale))]))
