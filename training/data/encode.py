"""Encode samples once, so that training reads latents and text features instead of running their encoders.

A shard of samples becomes ``latents-NAME.safetensors`` or, in buckets, a ``latents-NAME.HxW.safetensors`` per canvas:

- ``rgb`` (n, C, h, w) float16 latents;
- ``depth`` (n, H, W) float16, 0 where not measured, and ``depth_scale`` (n,) float32, by which it is multiplied to get
  the unit of the data (1 unless the numbers leave float16's range);
- ``caption_end`` (n,) int32: the captions of a sample are those before it and after the end of the sample before; of
  several, epochs take one after another. Older shards lack it and have one caption a sample;
- c captions of word-level encoders: ``token_ids`` (c, T) int32; of Qwen3: ``text`` (m, T, D) bfloat16, the features of
  the m different captions, and ``text_row`` (c,) int32;
- in the metadata ``captions``, ``keys``, ``facts`` (what it was made with) and ``broken`` (what was left out, and why).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...mforce_core import load_autoencoder
from ...mforce_core.encoders.text import TextEncoder, open_text_encoder
from ...mforce_core.encoders.words import WordTextEncoder
from ...mforce_core.whole_file import whole_file
from .buckets import bucket_canvases, nearest_canvas
from .encoders import autoencoder_mark, text_mark
from .sample import Broken, Sample
from .shards import Shard, ShardError
from .spool import Spool, spool
from .views import Fit, Size, numbered_view, view_depth, view_image

#: Depth is stored as it is within these, and by a power of two smaller or larger outside: float16 ends at 65504, and
#: has fewer digits below 6e-5.
_SMALLEST, _LARGEST = 2.0**-10, 2.0**15

NULL_TEXT_FILE = "null_text.safetensors"

#: What `mforce data encode` writes beside the shards.
ENCODE_REPORT = "encode.json"


@dataclass(frozen=True)
class EncodeSettings:
    """canvas (height, width) in pixels; ``text_encoder`` None stores captions alone.

    ``views``: rows of a sample, the center and then random crops (see :func:`.views.numbered_view`). ``depth``: leave
    out samples without it, or (False) leave depth out of all. ``aspects``: of the canvases with the longer side of
    ``canvas``, a square, every picture goes to the one whose shape is nearest (see :mod:`.buckets`).
    """

    vae: str
    text_encoder: str | None
    canvas: tuple[int, int]
    fit: Fit = "crop"
    views: int = 1
    depth: bool = True
    seed: int = 0
    batch_size: int = 64
    device: str = "cpu"
    aspects: bool = False

    def facts(self) -> dict:
        """What decides the contents of the files."""
        values = asdict(self)
        del values["batch_size"], values["device"]
        if not self.aspects:
            del values["aspects"]
        values["vae"] = autoencoder_mark(Path(self.vae))
        values["text_encoder"] = None if self.text_encoder is None else text_mark(Path(self.text_encoder))
        return json.loads(json.dumps(values))

    def canvases(self, grid: int) -> list[Size]:
        """All that pictures may go to. Raises ValueError where they are off the autoencoder's ``grid``."""
        height, width = self.canvas
        if any(side % grid or side < grid for side in self.canvas):
            raise ValueError(f"The size {width}x{height} is off the grid: both sides must be multiples of {grid}.")
        if self.aspects and height != width:
            raise ValueError("Buckets have one longer side: give the size as one number.")
        return bucket_canvases(height, grid) if self.aspects else [self.canvas]


class Encoded(NamedTuple):
    """What became of a shard: rows written, what was left out; ``error`` where it is to be tried again."""

    name: str
    rows: int
    broken: list[Broken]
    error: str | None = None


class ShardEncoder:
    """Encodes shards, one a call; a shard that is there already and made alike is kept.

    Raises:
        ValueError: a canvas off the autoencoder's grid; encoders that cannot be opened; an output folder of other
            settings.
    """

    def __init__(self, settings: EncodeSettings, out: Path) -> None:
        self.settings, self.out = settings, out
        self.facts = settings.facts()
        self.autoencoder = load_autoencoder(settings.vae, device=settings.device)
        self.canvases = settings.canvases(self.autoencoder.spatial_factor)
        self.text_encoder: TextEncoder | None = None
        if settings.text_encoder is not None:
            self.text_encoder = open_text_encoder(Path(settings.text_encoder), settings.device)
        out.mkdir(parents=True, exist_ok=True)
        self._write_null_text()

    def __call__(self, shard: Shard) -> Encoded:
        paths = {canvas: self._path(shard, canvas) for canvas in self.canvases}
        if all(path.exists() for path in paths.values()):
            return self._kept(shard, list(paths.values()))
        try:
            return self._encode(shard, paths)
        except ShardError as error:
            return Encoded(shard.name, 0, [], str(error))

    def _path(self, shard: Shard, canvas: Size) -> Path:
        bucket = ".{}x{}".format(*canvas) if self.settings.aspects else ""
        return self.out / f"latents-{shard.name}{bucket}.safetensors"

    def _write_null_text(self) -> None:
        """Beside the shards, the features (T, D) of the empty caption where they hold features."""
        path = self.out / NULL_TEXT_FILE
        if self.text_encoder is None or isinstance(self.text_encoder, WordTextEncoder) or path.exists():
            return
        text = self.text_encoder.encode([""])[0].to(torch.bfloat16).contiguous()
        with whole_file(path, suffix="") as partial:  # several processes may write it at a time
            save_file({"text": text}, partial)

    def _kept(self, shard: Shard, paths: list[Path]) -> Encoded:
        rows, broken = 0, []
        for path in paths:
            try:
                with safe_open(path, framework="pt") as file:
                    metadata, count = file.metadata() or {}, file.get_slice("rgb").get_shape()[0]
            except SafetensorError as error:
                raise ValueError(f"{path} is damaged ({error}): delete it and run again.") from None
            rows += count
            if "facts" not in metadata:  # earlier versions did not note what shards were made with
                continue
            facts = json.loads(metadata["facts"])
            wanted = self._facts_of(shard)
            if not facts.get("samples") or not wanted["samples"]:  # of tars of earlier versions, or that are gone
                facts["samples"] = wanted["samples"]
            if facts != wanted:
                changed = sorted(key for key in {*facts, *wanted} if facts.get(key) != wanted.get(key))
                raise ValueError(f"{path} was made with another {', '.join(changed)}: name a new folder.")
            broken += [Broken(*entry) for entry in json.loads(metadata["broken"])]
        return Encoded(shard.name, rows, broken)

    def _facts_of(self, shard: Shard) -> dict:
        return {**self.facts, "samples": shard.contents}

    def _encode(self, shard: Shard, paths: Mapping[Size, Path]) -> Encoded:
        broken: list[Broken] = []
        with ExitStack() as stack:
            buckets = {canvas: _Bucket(self, canvas, path, stack) for canvas, path in paths.items()}
            for record in shard.records():
                if isinstance(record, Broken):
                    broken.append(record)
                    continue
                try:
                    sample = record.decode()
                except ValueError as error:
                    broken.append(Broken(shard.location, record.key, str(error)))
                    continue
                height, width = sample.image.shape[:2]
                bucket = buckets[nearest_canvas((height, width), self.canvases)]
                for number in range(self.settings.views):
                    try:
                        bucket.add(sample, number)
                    except ValueError as error:
                        name = record.key if self.settings.views == 1 else f"{record.key}, view {number}"
                        broken.append(Broken(shard.location, name, str(error)))
            for number, bucket in enumerate(buckets.values()):
                bucket.save(self._facts_of(shard), broken if number == 0 else [])
        return Encoded(shard.name, sum(len(bucket.keys) for bucket in buckets.values()), broken)


class _Bucket:
    """The rows of a shard on one canvas, which grow on disk until they are saved."""

    def __init__(self, encoder: ShardEncoder, canvas: Size, path: Path, stack: ExitStack) -> None:
        self.autoencoder, self.path = encoder.autoencoder, path
        self.settings = replace(encoder.settings, canvas=canvas)
        self.rows = stack.enter_context(spool(path.with_name(f".{path.stem}.part")))
        self.texts = _Texts(encoder.text_encoder, self.rows)
        self.keys: list[str] = []
        self.captions: list[str] = []
        self._batch: list[tuple[Tensor, Tensor | None, tuple[str, ...]]] = []
        self._flush()  # settles the shapes, also of a bucket without a usable sample

    def add(self, sample: Sample, number: int) -> None:
        """A view of a sample. Raises ValueError where it cannot be used."""
        image, depth = view_sample(sample, self.settings, number)
        captions = sample.captions or ("",)
        self._batch.append((image, depth, captions))
        self.keys.append(sample.key)
        self.captions += captions
        if len(self._batch) == self.settings.batch_size:
            self._flush()

    def save(self, facts: dict, broken: list[Broken]) -> None:
        if self._batch:
            self._flush()
        lists = {"captions": self.captions, "keys": self.keys, "facts": facts, "broken": broken}
        self.rows.save(self.path, {name: json.dumps(value) for name, value in lists.items()})

    @torch.no_grad()
    def _flush(self) -> None:
        batch, (height, width) = self._batch, self.settings.canvas
        if batch:
            images = torch.stack([image for image, _, _ in batch]).to(self.settings.device)
            latents = self.autoencoder.encode(images.float() / 127.5 - 1).to("cpu", torch.float16)
        else:
            factor = self.autoencoder.spatial_factor
            size = (0, self.autoencoder.latent_channels, height // factor, width // factor)
            latents = torch.empty(size, dtype=torch.float16)
        self.rows.append("rgb", latents)
        if self.settings.depth:
            maps = [depth for _, depth, _ in batch if depth is not None]
            depth, scale = half_depth(torch.stack(maps) if maps else torch.empty(0, height, width))
            self.rows.append("depth", depth)
            self.rows.append("depth_scale", scale)
        self.texts.append([captions for _, _, captions in batch])
        self._batch = []


def view_sample(sample: Sample, settings: EncodeSettings, number: int) -> tuple[Tensor, Tensor | None]:
    """View ``number`` of a sample: image (3, H, W) uint8 and depth (H, W) with NaN where not measured, or None.

    Raises:
        ValueError: depth is wanted, and there is none in the part of the picture that is used.
    """
    height, width = sample.image.shape[:2]
    captions = " ".join(sample.captions)
    view = numbered_view(number, settings.seed, sample.key, captions, (height, width), settings.canvas, settings.fit)
    image = view_image(sample.image, view)
    if not settings.depth:
        return image, None
    if sample.depth is None:
        raise ValueError("it has no depth; without depth it can be used for text to image")
    depth = view_depth(sample.depth, view, sparse=sample.sparse)
    if not depth.isfinite().any():
        raise ValueError("no measured pixel lies in the part of the picture that is used")
    return image, depth


class _Texts:
    """Writes captions as their encoder gives them, features once for all rows that share a caption."""

    def __init__(self, encoder: TextEncoder | None, rows: Spool) -> None:
        self.encoder, self.rows = encoder, rows
        self.seen: dict[str, int] = {}
        self.written = 0

    def append(self, samples: list[tuple[str, ...]]) -> None:
        """``samples``: the captions of each."""
        captions = [caption for own in samples for caption in own]
        ends = self.written + torch.tensor([len(own) for own in samples], dtype=torch.int32).cumsum(0)
        self.rows.append("caption_end", ends.to(torch.int32))
        self.written += len(captions)
        if self.encoder is None:
            return
        if isinstance(self.encoder, WordTextEncoder):
            self.rows.append("token_ids", self.encoder.tokenize(captions).to(torch.int32))
            return
        new = [caption for caption in dict.fromkeys(captions) if caption not in self.seen]
        if not captions:
            empty = torch.empty(0, self.encoder.length, self.encoder.dim, dtype=torch.bfloat16)
            self.rows.append("text", empty)
        for caption in new:
            self.seen[caption] = len(self.seen)
            self.rows.append("text", self.encoder.encode([caption]).to(torch.bfloat16))
        self.rows.append("text_row", torch.tensor([self.seen[caption] for caption in captions], dtype=torch.int32))


def half_depth(depth: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (B, H, W) with NaN where not measured as float16 with 0 there, and the factors (B,) back to their unit."""
    known = depth.isfinite() & (depth > 0)
    filled = torch.where(known, depth, 1.0).flatten(1)
    scale = torch.ones(len(depth))
    if depth.numel():
        wide = (filled.amax(1) > _LARGEST) | (filled.amin(1) < _SMALLEST)
        middle = torch.where(known, depth, torch.nan).flatten(1).nanmedian(1).values
        scale = torch.where(wide, torch.exp2(middle.log2().round()), scale)
    half = torch.finfo(torch.float16)
    small = (depth / scale[:, None, None]).clamp(half.tiny, half.max)
    return torch.where(known, small, 0.0).to(torch.float16), scale
