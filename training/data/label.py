"""Depth for pictures that have none: image to depth with a trained model, written beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...evaluation.seeds import picture_seed
from ...mforce_core import decode_depth, load_autoencoder, load_model, sample
from ...mforce_core.depth.files import write_16_bit
from ...mforce_core.encoders.text import open_text_encoder
from ...mforce_core.model.tokens import latents_to_tokens, tokens_to_patches
from ...mforce_core.release import CFG, STEPS
from .extras import need
from .sample import Broken, Sample, role_of
from .shards import FilesRecord, FolderShard, Shard, ShardError, TarShard
from .views import plan_view, view_image
from .whole_tar import whole_tar

#: Ending of the files that are written.
ENDING = "depth.png"


@dataclass(frozen=True)
class LabelSettings:
    """``side``: of the square on which a picture is letterboxed for the model, in pixels."""

    model: str
    vae: str
    text_encoder: str
    side: int
    steps: int = STEPS
    seed: int = 0
    batch_size: int = 8
    device: str = "cpu"
    dtype: str = "bfloat16"


class Labeled(NamedTuple):
    """What became of a shard; ``kept`` had depth already."""

    name: str
    written: int
    kept: int
    broken: list[Broken]
    error: str | None = None


class Labeler:
    """Gives the pictures of a shard depth, one shard per call.

    Depth is relative (16-bit png, 0 = none). In a folder it is written beside each picture as ``KEY.depth.png``; a
    tar is copied with it to ``out``. Depth that is there already is kept, and so are tars in ``out``.

    Raises:
        ValueError: a model without a depth stream, parts that do not fit, a size off the grid.
    """

    def __init__(self, settings: LabelSettings, out: Path | None) -> None:
        self.settings, self.out = settings, out
        if settings.side % 16 or settings.side < 16:
            raise ValueError(f"The size {settings.side} is off the grid: it must be a multiple of 16.")
        self.null_text = open_text_encoder(Path(settings.text_encoder), settings.device).encode([""])
        self.autoencoder = load_autoencoder(settings.vae, device=settings.device, dtype=torch.float32)
        self.model = load_model(settings.model, device=settings.device, dtype=getattr(torch, settings.dtype))
        needed = self.model.config.context_in_dim, self.model.config.in_channels
        found = self.null_text.shape[-1], self.autoencoder.latent_channels
        if found != needed:
            raise ValueError(
                f"{settings.model} needs {needed[0]} text features and {needed[1]} latent channels; "
                f"{settings.text_encoder} and {settings.vae} give {found[0]} and {found[1]}."
            )

    def __call__(self, shard: Shard) -> Labeled:
        try:
            if isinstance(shard, FolderShard):
                return self._folder(shard)
            if isinstance(shard, TarShard):
                return self._tar(shard)
        except ShardError as error:
            return Labeled(shard.name, 0, 0, [], str(error))
        raise ValueError(f"{shard.location} has depth already: rendered scenes are not labeled.")

    def _folder(self, shard: FolderShard) -> Labeled:
        system, _ = need("fsspec", "Writing depth").core.url_to_fs(shard.location)
        images = {
            key: next(path for ending, path in files if role_of(ending) == "image") for key, files in shard.samples
        }
        missing = tuple((k, files) for k, files in shard.samples if not _has_depth([ending for ending, _ in files]))
        broken: list[Broken] = []
        written = 0
        for record, png in self._labels(FolderShard(shard.location, shard.number, missing), broken):
            if png is not None:
                path = images[record.key].rpartition(".")[0] + f".{ENDING}"
                with system.transaction, system.open(path, "wb") as file:  # appears whole
                    file.write(png)
                written += 1
        return Labeled(shard.name, written, len(shard.samples) - len(missing), broken)

    def _tar(self, shard: TarShard) -> Labeled:
        if self.out is None:
            raise ValueError("A tar is not changed in place: name a folder for the new one with --out.")
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{shard.name}.tar"
        if path.exists():
            return Labeled(shard.name, 0, 0, [])
        broken: list[Broken] = []
        written = kept = 0
        with whole_tar(path) as tar:
            for record, png in self._labels(shard, broken):
                files = record.files if png is None else {**record.files, ENDING: png}
                written, kept = written + (png is not None), kept + (png is None)
                tar.write({"__key__": record.key, **files})
        return Labeled(shard.name, written, kept, broken)

    def _labels(self, shard: Shard, broken: list[Broken]) -> Iterator[tuple[FilesRecord, bytes | None]]:
        """Every usable record with the png of its depth, None where it has depth already."""
        waiting: list[tuple[FilesRecord, Sample]] = []
        for record in shard.records():
            if isinstance(record, Broken):
                broken.append(record)
                continue
            assert isinstance(record, FilesRecord)
            if _has_depth(list(record.files)):
                yield record, None
                continue
            try:
                waiting.append((record, record.decode()))
            except ValueError as error:
                broken.append(Broken(shard.location, record.key, str(error)))
            if len(waiting) == self.settings.batch_size:
                yield from self._infer(waiting, shard.location, broken)
                waiting = []
        yield from self._infer(waiting, shard.location, broken)

    def _infer(
        self, batch: list[tuple[FilesRecord, Sample]], location: str, broken: list[Broken]
    ) -> Iterator[tuple[FilesRecord, bytes]]:
        if not batch:
            return
        samples = [sample for _, sample in batch]
        for (record, decoded), depth in zip(batch, self.depth_of(samples), strict=True):
            if depth.isfinite().any():
                yield record, _png(depth.numpy())
            else:
                broken.append(Broken(location, decoded.key, "the model gave no valid depth"))

    @torch.no_grad()
    def depth_of(self, samples: list[Sample]) -> list[Tensor]:
        """Relative depth (H, W) of each picture at its own size, NaN where the model gives none.

        The noise of a picture depends on the seed and its key, not on its batch.
        """
        side = self.settings.side
        views = [plan_view((s.image.shape[0], s.image.shape[1]), (side, side), "pad") for s in samples]
        images = torch.stack([view_image(s.image, view) for s, view in zip(samples, views, strict=True)])
        latents = self.autoencoder.encode(images.to(self.settings.device).float() / 127.5 - 1)
        grid = latents.shape[2], latents.shape[3]
        rgb = latents_to_tokens(latents).float()
        tokens = grid[0] * grid[1]
        noise = torch.stack([self._noise(s.key, (tokens, self.model.config.depth_channels)) for s in samples])
        text = self.null_text.expand(len(samples), -1, -1)
        _, depth = sample(
            self.model,
            text,
            grid,
            mode="i2d",
            steps=self.settings.steps,
            cfg=CFG["i2d"],
            rgb=rgb,
            noise=(torch.zeros_like(rgb), noise),
        )
        maps = decode_depth(tokens_to_patches(depth, grid)).cpu()
        return [view.placement.restore_depth(one[None])[0] for one, view in zip(maps, views, strict=True)]

    def _noise(self, key: str, shape: tuple[int, int]) -> Tensor:
        generator = torch.Generator().manual_seed(picture_seed(self.settings.seed, key))
        return torch.randn(shape, generator=generator)


def _has_depth(endings: list[str]) -> bool:
    return any(role_of(ending) in ("depth", "points") for ending in endings)


def _png(depth: np.ndarray) -> bytes:
    with tempfile.TemporaryDirectory(prefix="mforce-") as folder:
        path = Path(folder) / ENDING
        write_16_bit(path, depth)
        return path.read_bytes()
