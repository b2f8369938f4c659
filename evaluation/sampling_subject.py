"""A loaded model, its prompts and scenes, and what the studies of sampling measure on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..mforce_core.depth.codec import decode_depth, encode_depth
from ..mforce_core.depth.completion import complete_patches
from ..mforce_core.model.block_cache import BlockCache
from ..mforce_core.model.tokens import latents_to_tokens, patches_to_tokens, tokens_to_latents, tokens_to_patches
from ..mforce_core.pipeline import Pipeline
from ..mforce_core.release import PATCH_SIZE
from ..mforce_core.sampling.guidance import Guidance
from ..mforce_core.sampling.path_spec import PathSpec
from ..mforce_core.sampling.rollout import sample
from ..mforce_core.sampling.solvers import Streams
from ..scenes import SceneLayout, captions, render, sample_layouts
from .kept_tensors import KeptTensors

#: Pictures that are sampled together.
_BATCH = 32


@dataclass(frozen=True)
class Way:
    """How a rollout is taken: path, steps, solver, guidance, and the threshold of its block cache."""

    path: str
    steps: int
    sampler: str = "euler"
    cfg: float = 4.0
    cfg_interval: tuple[float, float] = (0.0, 1.0)
    block_cache: float = 0.0

    @property
    def settings(self) -> dict[str, Any]:
        chosen = {name: value for name, value in vars(self).items() if name != "block_cache" or value}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}


@dataclass(frozen=True)
class Outcome:
    """Tokens (B, N, C) of both streams, and what they cost: calls of the model a picture, and seconds in all.

    ``reused`` is the share of calls in which a block cache left most blocks out.
    """

    rgb: Tensor
    depth: Tensor
    passes: float
    seconds: float
    reused: float = 0.0


class Subject:
    """The model under study; seeds of pictures count up from ``seed``."""

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        self.pipeline, self.seed = pipeline, seed
        width, height = pipeline.settings.canvas
        if width != height:
            raise ValueError(f"A study of sampling needs a square `size`, got {width}x{height}.")
        self.side, self.grid = width, (height // PATCH_SIZE, width // PATCH_SIZE)
        self._rows = 0
        pipeline.model.register_forward_pre_hook(self._count)

    def _count(self, _: Any, inputs: tuple[Tensor, ...]) -> None:
        self._rows += len(inputs[0])

    def scenes(self, count: int) -> tuple[SceneLayout, Tensor, Tensor]:
        """Layouts, pictures (B, 3, H, W) in [0, 1] and exact depth (B, H, W) of held-out scenes."""
        layout = sample_layouts(count, self.seed)
        return layout, *render(layout, self.side)

    def captions(self, layout: SceneLayout) -> list[str]:
        return captions(layout)

    def run(
        self,
        prompts: Sequence[str],
        way: Way,
        *,
        mode: str = "joint",
        rgb: Tensor | None = None,
        depth: Tensor | None = None,
        again: int = 0,
        measured: tuple[Tensor, Tensor] | None = None,
    ) -> Outcome:
        """Sample every prompt with its own seed.

        Args:
            again: numbers further draws of noise.
            measured: depth (B, H, W) that every step is corrected by, and where it is known, bool.
        """
        path = PathSpec.parse(way.path).build(way.steps, self.pipeline.model.schedule)
        empty = self.pipeline.features([""])
        caches: list[BlockCache] = []
        parts, self._rows, start = [], 0, time.perf_counter()
        for rows in torch.arange(len(prompts)).split(_BATCH):
            caches += [BlockCache(way.block_cache)] if way.block_cache else []
            parts.append(
                sample(
                    self.pipeline.model,
                    self.pipeline.features([prompts[row] for row in rows]),
                    self.grid,
                    mode=mode,  # type: ignore[arg-type]
                    cfg=Guidance(way.cfg, way.cfg_interval),
                    null_text=empty,
                    rgb=None if rgb is None else rgb[rows],
                    depth=None if depth is None else depth[rows],
                    seed=[self.seed + again * 1_000_003 + int(row) for row in rows],
                    path=path,
                    solver=way.sampler,
                    block_cache=caches[-1] if caches else None,
                    correct=None if measured is None else self._holding(*(part[rows] for part in measured)),
                )
            )
        seconds = time.perf_counter() - start
        made_rgb, made_depth = (torch.cat(stream).cpu() for stream in zip(*parts, strict=True))
        reused = sum(cache.reused for cache in caches) / max(sum(cache.asked for cache in caches), 1)
        return Outcome(made_rgb, made_depth, self._rows / len(prompts), seconds, reused)

    def _holding(self, depth: Tensor, valid: Tensor) -> Callable[[Streams], Streams]:
        """What corrects clean tokens by measurements (B, H, W), in the unit that the depth stream has."""
        unit = (depth * valid).sum((1, 2)) / valid.sum((1, 2))
        known, valid = (part.to(self.pipeline.device) for part in (depth / unit[:, None, None], valid))

        def correct(clean: Streams) -> Streams:
            patches = tokens_to_patches(clean.depth, self.grid).float()
            return clean._replace(depth=patches_to_tokens(complete_patches(patches, known, valid)))

        return correct

    def depth_of(self, rgb: Tensor, steps: int = 1) -> Tensor:
        """Depth maps (B, H, W) that the model itself sees in RGB tokens."""
        way = Way("i2d", steps, cfg=1.0)
        return self.maps(self.run([""] * len(rgb), way, mode="i2d", rgb=rgb.to(self.pipeline.device)).depth)

    def encode(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [0, 1] -> RGB tokens."""
        return encode_pictures(self.pipeline, images, _BATCH)

    def decode(self, rgb: Tensor) -> Tensor:
        """RGB tokens -> pictures (B, 3, H, W) in [0, 1]."""
        parts = [
            self.pipeline.autoencoder.decode(tokens_to_latents(part.to(self.pipeline.device), self.grid).contiguous())
            for part in rgb.split(_BATCH)
        ]
        return torch.cat(parts).float().clamp(-1, 1).cpu() / 2 + 0.5

    def encode_depth(self, maps: Tensor) -> Tensor:
        return patches_to_tokens(encode_depth(maps)).to(self.pipeline.device)

    def maps(self, depth: Tensor) -> Tensor:
        """Depth tokens -> maps (B, H, W)."""
        return decode_depth(tokens_to_patches(depth, self.grid)).cpu()


@torch.no_grad()
def encode_pictures(pipeline: Pipeline, images: Tensor, together: int) -> Tensor:
    """RGB tokens of pictures (B, 3, H, W) in [0, 1], of so many at a time."""
    parts = [pipeline.autoencoder.encode(part.to(pipeline.device) * 2 - 1) for part in images.split(together)]
    return latents_to_tokens(torch.cat(parts)).float()


def reference_of(subject: Subject, prompts: Sequence[str], way: Way, file: Path | None) -> Outcome:
    """The tokens that rollouts are held against, from a file where they are there, as they take long.

    Raises:
        ValueError: the file holds those of another model, seed, size, way or other prompts.
    """
    made_of = [subject.pipeline.model_files, subject.seed, subject.side, list(prompts), way.settings]
    file_of = KeptTensors(file, made_of, "references of another model, seed, size or prompts")
    if (found := file_of.read()) is not None:
        return Outcome(found["rgb"], found["depth"], 0.0, 0.0)
    outcome = subject.run(prompts, way)
    file_of.write({"rgb": outcome.rgb, "depth": outcome.depth})
    return outcome
