"""The transformer: FLUX.2-klein's text and image streams plus a depth stream, one joint attention over the three.

Module and parameter names are the checkpoint's. Linear layers (all without bias) come from an injectable
``operations`` namespace, so that a host can offload, cast or quantize them; everything between them is a call into
:mod:`..kernels`.
"""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from ...kernels import Segment
from ..release import MIN_DEPTH_TIME
from .block_cache import BlockCache
from .blocks import DoubleStreamBlock, FinalLayer, SingleStreamBlock, run_single_blocks
from .config import LAPPED_MARKER, Architecture, Schedule
from .lapped import LappedPatches
from .modulation import (
    ModulationProjection,
    Modulations,
    TimeEmbedder,
    timestep_embedding,
    unpack_block,
    unpack_single,
)
from .rotation import RotationTables


def implied_velocity(noisy: Tensor, clean: Tensor, t: Tensor) -> Tensor:
    """Velocity (x_t - x_0) / t of predicted clean latents x_0, with t floored as for depth (eq. 9 of the paper).

    Args:
        noisy, clean: (B, N, C).
        t: noise levels, (B,) or one.
    """
    return (noisy.float() - clean.float()) / t.clamp(min=MIN_DEPTH_TIME)[:, None, None]


def _joined(txt: Tensor, img: Tensor, dep: Tensor | None) -> Tensor:
    """The streams as one sequence, (B, T + 2 N, C)."""
    return torch.cat([txt, img] if dep is None else [txt, img, dep], dim=1)


class ModalityForcingTransformer(nn.Module):
    """Denoiser of an RGB latent and a depth map that each have their own noise level.

    Args:
        config: sizes; with ``depth_channels == 0`` it is a plain FLUX.2 text-to-image transformer.
        schedule: timestep shift that the weights were trained for, used by the sampler.
        operations: namespace with ``Linear``; ``torch.nn`` or a host's own.
        dtype: of the weights. The depth head is float32 whatever this is: in bfloat16 its output shows bands.
        compute_dtype: of the computation; that of the weights by default.
    """

    def __init__(
        self,
        config: Architecture,
        *,
        schedule: Schedule | None = None,
        operations: Any = nn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        compute_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.schedule = schedule or Schedule()
        self.compute_dtype = compute_dtype or dtype or torch.get_default_dtype()
        self.rotation = RotationTables(config)
        size = config.hidden_size
        factory = {"operations": operations, "device": device, "dtype": dtype}
        linear = {"bias": False, "device": device, "dtype": dtype}

        self.img_in = operations.Linear(config.in_channels, size, **linear)
        self.txt_in = operations.Linear(config.context_in_dim, size, **linear)
        self.time_in = TimeEmbedder(size, **factory)
        if config.use_guidance_embed:
            self.guidance_in = TimeEmbedder(size, **factory)
        if config.depth_double:
            self.double_stream_modulation_img = ModulationProjection(size, 6, **factory)
            self.double_stream_modulation_txt = ModulationProjection(size, 6, **factory)
        self.single_stream_modulation = ModulationProjection(size, 3, **factory)
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(config, **factory) for _ in range(config.depth_double))
        self.single_blocks = nn.ModuleList(SingleStreamBlock(config, **factory) for _ in range(config.depth_single))
        self.final_layer = FinalLayer(size, config.in_channels, **factory)
        self.lapped: LappedPatches | None = None
        if not config.has_depth:
            return
        if config.depth_lapped:
            self.lapped = LappedPatches(config.depth_patch_size)
            # A file of the weights alone, without its configuration, must tell it, too.
            self.register_buffer(LAPPED_MARKER, torch.ones(1, device=device, dtype=dtype))

        self.depth_in = operations.Linear(config.depth_channels, size, **linear)
        self.time_in_depth = TimeEmbedder(size, **factory)
        if config.cross_stream_timestep_mixing:
            self.time_in_depth_to_img = TimeEmbedder(size, **factory)
            self.time_in_rgb_to_depth = TimeEmbedder(size, **factory)
            self.cross_alpha_img = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))
            self.cross_alpha_depth = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))
        if config.depth_double:
            self.double_stream_modulation_depth = ModulationProjection(size, 6, **factory)
        self.single_stream_modulation_depth = ModulationProjection(size, 3, **factory)
        if config.depth_decoder_num_layers:
            self.depth_decoder_modulation = ModulationProjection(size, 3, **factory)
        self.depth_decoder_blocks = nn.ModuleList(
            SingleStreamBlock(config, **factory) for _ in range(config.depth_decoder_num_layers)
        )
        self.depth_final_layer = FinalLayer(size, config.depth_channels, **(factory | {"dtype": torch.float32}))

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
        dtype: torch.dtype | None = None,
        cache: BlockCache | None = None,
        cache_key: Hashable = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Predict the RGB velocity and the clean depth.

        B batch, T text tokens, N = h * w image tokens and as many of depth, C hidden size.

        Args:
            rgb: noisy RGB tokens, (B, N, in_channels), row-major over the grid.
            depth: noisy depth tokens, (B, N, depth_channels); None runs the text-to-image half alone, which is the
                FLUX.2 base model.
            text: text features, (B, T, context_in_dim).
            t_rgb, t_depth: noise levels, (B,), 1 = pure noise, 0 = clean.
            grid: (h, w) with h * w = N.
            guidance: (B,), for bases that embed a guidance scale.
            modulations: from :meth:`modulations`, B rows or one, instead of the noise levels and the guidance.
            dtype: of this computation; the model's ``compute_dtype`` by default.
            cache: of a rollout: most blocks are left out where they would add nearly what they added before.
            cache_key: of the conditionings of this call, where a rollout has several calls a step.

        Returns:
            RGB velocity eps - x_0, (B, N, in_channels) in the computation's dtype (float32 where clean latents imply
            it), and the clean depth x_0, (B, N, depth_channels) in float32 (None where ``depth`` is None).

        Raises:
            ValueError: shapes that do not fit the architecture or each other.
        """
        self._check(rgb, depth, text, grid)
        dtype = dtype or self.compute_dtype
        if modulations is None:
            if depth is not None and t_depth is None:
                raise ValueError("depth tokens need their noise level t_depth")
            modulations = self.modulations(t_rgb, None if depth is None else t_depth, guidance, dtype=dtype)
        if depth is not None and self.lapped is not None:
            depth = self.lapped.lap(depth, grid)
        streams = [
            self.txt_in(text.to(dtype)),  # (B, T, C)
            self.img_in(rgb.to(dtype)),  # (B, N, C)
            None if depth is None else self.depth_in(depth.to(dtype)),  # (B, N, C)
        ]
        length, image = text.shape[1], rgb.shape[1]  # T, N
        table = self.rotation(length, grid, with_depth=depth is not None, device=rgb.device)

        x = self._trunk(streams, modulations, table, cache, cache_key)  # (B, T + 2 N, C)
        velocity = self.final_layer(x[:, length : length + image], modulations.final)  # (B, N, in_channels)
        if modulations.t_rgb is not None:
            velocity = implied_velocity(rgb, velocity, modulations.t_rgb)
        if modulations.depth_final is None:
            return velocity, None

        x = x[:, length + image :]  # (B, N, C)
        if modulations.decoder is not None:
            segments = [Segment(image, unpack_single(modulations.decoder))]
            x = run_single_blocks(self.depth_decoder_blocks, x, segments, table[:, length + image :])
        clean = self.depth_final_layer(x.float(), modulations.depth_final)
        return velocity, clean if self.lapped is None else self.lapped.unlap(clean, grid)

    def _trunk(
        self,
        streams: list[Tensor | None],
        modulations: Modulations,
        table: Tensor,
        cache: BlockCache | None,
        key: Hashable,
    ) -> Tensor:
        """Text, image and depth after the double and the single blocks, one sequence (B, T + 2 N, C).

        The list of streams is emptied, so that they are freed on the way.
        """
        txt, img, dep = streams
        streams.clear()
        assert txt is not None
        assert img is not None
        text, image = txt.shape[1], img.shape[1]
        before = first = after = None
        if modulations.txt is not None and modulations.img is not None:
            txt_modulation, img_modulation = unpack_block(modulations.txt), unpack_block(modulations.img)
            depth_modulation = None if modulations.depth is None else unpack_block(modulations.depth)
            if cache is not None:
                before = _joined(txt, img, dep)
            for number, block in enumerate(self.double_blocks):
                txt, img, dep = block(txt, img, dep, txt_modulation, img_modulation, depth_modulation, table)
                if number == 0 and cache is not None and before is not None:
                    after = _joined(txt, img, dep)
                    first = (after - before)[:, text:]
                    if (rest := cache.rest(first, key)) is not None:
                        return after + rest

        # One sequence from here on; text and image share a modulation, depth has its own.
        segments = [Segment(text + image, unpack_single(modulations.single))]
        if dep is not None and modulations.single_depth is not None:
            segments.append(Segment(image, unpack_single(modulations.single_depth)))
        x = _joined(txt, img, dep)
        del txt, img, dep
        x = run_single_blocks(self.single_blocks, x, segments, table)
        if cache is not None and first is not None and after is not None:
            cache.keep(first, x - after, key)
        return x

    def modulations(
        self,
        t_rgb: Tensor | None,
        t_depth: Tensor | None,
        guidance: Tensor | None = None,
        *,
        dtype: torch.dtype | None = None,
    ) -> Modulations:
        """Modulation vectors of every block at the noise levels (R,), of one call or of a whole rollout at once.

        Args:
            t_rgb, t_depth: noise levels, (R,); ``t_depth`` None leaves the depth stream out.
            guidance: (R,), for bases that embed a guidance scale.
            dtype: of this computation; the model's ``compute_dtype`` by default.

        Raises:
            ValueError: no ``t_rgb``, or no ``guidance`` where the model embeds it.
        """
        if t_rgb is None:
            raise ValueError("the model needs the noise level t_rgb")
        if self.config.use_guidance_embed and guidance is None:
            raise ValueError("this checkpoint embeds a guidance scale: pass guidance (B,)")
        if t_rgb.device.type == "cpu" and t_rgb.shape[0] == 1:
            # The rounding of a product with one row depends on where its weights lie in memory: use the first of two.
            t_depth, guidance = (None if level is None else level.expand(2) for level in (t_depth, guidance))
            return self._modulations(t_rgb.expand(2), t_depth, guidance, dtype).rows(0, 1)
        return self._modulations(t_rgb, t_depth, guidance, dtype)

    def _modulations(
        self, t_rgb: Tensor, t_depth: Tensor | None, guidance: Tensor | None, dtype: torch.dtype | None
    ) -> Modulations:
        """:meth:`modulations` of any number of rows. Sharded training gathers weights around that method."""
        vec_img, vec_depth = self._conditioning(t_rgb, t_depth, guidance, dtype or self.compute_dtype)
        txt = self.double_stream_modulation_txt(vec_img) if self.config.depth_double else None
        img = self.double_stream_modulation_img(vec_img) if self.config.depth_double else None
        single = self.single_stream_modulation(vec_img)
        final = self.final_layer.adaLN_modulation(vec_img)
        time = t_rgb.float() if self.config.rgb_prediction == "clean" else None
        if vec_depth is None:
            return Modulations(txt, img, None, single, None, None, final, None, time)
        return Modulations(
            txt=txt,
            img=img,
            depth=self.double_stream_modulation_depth(vec_depth) if self.config.depth_double else None,
            single=single,
            single_depth=self.single_stream_modulation_depth(vec_depth),
            decoder=self.depth_decoder_modulation(vec_depth) if len(self.depth_decoder_blocks) else None,
            final=final,
            depth_final=self.depth_final_layer.adaLN_modulation(vec_depth.float()),
            t_rgb=time,
        )

    def _conditioning(
        self, t_rgb: Tensor, t_depth: Tensor | None, guidance: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None]:
        """Conditioning vectors (R, C) of the image and depth streams.

        Cross-stream mixing tells each of them the other's noise level, behind a learned gate that starts at zero.
        """
        rgb_sinusoid = timestep_embedding(t_rgb.to(dtype))
        vec_img = self.time_in(rgb_sinusoid)
        if self.config.use_guidance_embed and guidance is not None:
            vec_img = vec_img + self.guidance_in(timestep_embedding(guidance.to(dtype)))
        if t_depth is None:
            return vec_img, None
        depth_sinusoid = timestep_embedding(t_depth.to(dtype))
        vec_depth = self.time_in_depth(depth_sinusoid)
        if self.config.cross_stream_timestep_mixing:
            alpha_img, alpha_depth = self.cross_alpha_img.to(rgb_sinusoid), self.cross_alpha_depth.to(rgb_sinusoid)
            vec_img = vec_img + alpha_img * self.time_in_depth_to_img(depth_sinusoid)
            vec_depth = vec_depth + alpha_depth * self.time_in_rgb_to_depth(rgb_sinusoid)
        return vec_img, vec_depth

    def _check(self, rgb: Tensor, depth: Tensor | None, text: Tensor, grid: tuple[int, int]) -> None:
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
