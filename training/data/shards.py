"""Where samples lie: WebDataset tars, plain folders and rendered scenes, on local disk or in object storage.

A shard is the unit of work: what one worker reads from beginning to end. ``records`` decodes nothing, so samples can be
counted, skipped and shuffled cheaply; a sample is decoded by its record's ``decode``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import torch

from ...scenes import Shard as Scenes
from ...scenes import read_shards
from .extras import need
from .folders import Files, pair_files
from .sample import Broken, Sample, decode_files, picture_size
from .tar_members import tar_members
from .views import Size

#: Samples of a plain folder that are one shard.
FOLDER_SHARD = 512

_TAR = (".tar", ".tar.gz", ".tgz")


class ShardError(ValueError):
    """A shard that could not be read to its end for a reason outside it, such as a network."""


class MissingShardError(ShardError):
    """A shard that is not where it should be."""


class Record(Protocol):
    """A sample that is not decoded yet."""

    @property
    def key(self) -> str: ...

    def decode(self) -> Sample:
        """Raises ValueError: why the sample cannot be used."""
        ...

    def size(self) -> Size:
        """(height, width) of its picture. Raises ValueError where that cannot be read."""
        ...


class Shard(Protocol):
    """A part of a data set that is read as one.

    Attributes:
        name: stem of the files that are written for it.
        location: where a person finds it.
        contents: identifies the samples in it; empty where the location does.
    """

    @property
    def name(self) -> str: ...

    @property
    def location(self) -> str: ...

    @property
    def contents(self) -> str: ...

    def records(self) -> Iterator[Record | Broken]:
        """Raises ShardError."""
        ...


class FilesRecord(NamedTuple):
    """Contents of a sample's files by ending, as :func:`.sample.decode_files` takes them."""

    key: str
    files: dict[str, bytes]

    def decode(self) -> Sample:
        return decode_files(self.key, self.files)

    def size(self) -> Size:
        return picture_size(self.files)


class SceneRecord(NamedTuple):
    """rgb (3, H, W) uint8 and depth (H, W) float16 meters of a rendered scene."""

    key: str
    rgb: torch.Tensor
    depth: torch.Tensor
    caption: str

    def decode(self) -> Sample:
        image = self.rgb.permute(1, 2, 0).contiguous().numpy()
        return Sample(self.key, image, (self.caption,) if self.caption else (), self.depth.float().numpy(), "metric")

    def size(self) -> Size:
        return self.rgb.shape[1], self.rgb.shape[2]


@dataclass(frozen=True)
class TarShard:
    """A WebDataset tar: the files of a sample follow each other and share the name up to the first dot."""

    location: str

    @property
    def contents(self) -> str:
        """Its size in bytes, which another tar of the same name hardly has; empty where it is not known."""
        fsspec = need("fsspec", "Reading shards")
        try:
            system, path = fsspec.core.url_to_fs(self.location)
            return str(system.size(path) or "")
        except OSError:
            return ""

    @property
    def name(self) -> str:
        return re.sub(r"(\.tar|\.tar\.gz|\.tgz)$", "", self.location.rsplit("/", 1)[-1])

    def records(self) -> Iterator[FilesRecord | Broken]:
        fsspec = need("fsspec", "Reading shards")
        iterators = need("webdataset.tariterators", "Reading .tar shards")
        damage: list[Exception] = []
        doubled: list[Exception] = []

        def note_doubled(error: Exception) -> bool:
            doubled.append(error)
            return True

        last: FilesRecord | Broken | None = None
        try:
            with fsspec.open(self.location, "rb") as stream:
                for group in iterators.group_by_keys(self._files(stream, damage), handler=note_doubled):
                    if last is not None:
                        yield last
                    key = group["__key__"]
                    last = FilesRecord(key, {name: data for name, data in group.items() if not name.startswith("__")})
                    if doubled:
                        last = Broken(self.location, key, "it has two files of the same name")
                        doubled.clear()
        except FileNotFoundError:
            raise MissingShardError(f"{self.location} does not exist") from None
        except OSError as error:
            raise ShardError(f"{self.location} could not be read to its end ({_first_line(error)})") from error
        if damage:
            key = "" if last is None else last.key
            yield Broken(self.location, key, f"the tar is damaged or cut short from here on ({_first_line(damage[0])})")
        elif last is not None:
            yield last

    def _files(self, stream: IO[bytes], damage: list[Exception]) -> Iterator[dict[str, Any]]:
        """The tar's files as webdataset's ``group_by_keys`` takes them, up to where it is damaged."""
        try:
            for name, content in tar_members(stream):
                yield {"fname": name, "data": content, "__url__": self.location}
        except ValueError as error:
            damage.append(error)


@dataclass(frozen=True)
class FolderShard:
    """Some samples of a folder: by key, their files' paths by ending; what is said of files without a picture."""

    location: str
    number: int
    samples: tuple[tuple[str, Files], ...]
    unpaired: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.location.rstrip('/').rsplit('/', 1)[-1]}-{self.number:05d}"

    @property
    def contents(self) -> str:
        return hashlib.sha256("\n".join(key for key, _ in self.samples).encode()).hexdigest()[:16]

    def records(self) -> Iterator[FilesRecord | Broken]:
        fsspec = need("fsspec", "Reading folders")
        system, _ = fsspec.core.url_to_fs(self.location)
        yield from (Broken(self.location, "", reason) for reason in self.unpaired)
        for key, paths in self.samples:
            try:
                yield FilesRecord(key, {ending: system.cat_file(path) for ending, path in paths})
            except FileNotFoundError as error:
                yield Broken(self.location, key, f"its file {error.filename or error} is gone")
            except OSError as error:
                raise ShardError(f"{self.location}: {key} could not be read ({_first_line(error)})") from error


@dataclass(frozen=True)
class SceneShard:
    """A shard of rendered scenes, ``scenes-*.safetensors``."""

    location: str
    contents: str = ""

    @property
    def name(self) -> str:
        return Path(self.location).stem.removeprefix("scenes-")

    def records(self) -> Iterator[SceneRecord | Broken]:
        scenes = Scenes(Path(self.location))
        try:
            rgb, depth, captions = scenes.rgb, scenes.depth, scenes.captions
            count, size = len(captions), tuple(rgb.shape[2:])
            if rgb.ndim != 4 or rgb.dtype != torch.uint8 or tuple(rgb.shape[:2]) != (count, 3):
                raise ValueError(f"{scenes.path} has pictures of shape {tuple(rgb.shape)} for {count} captions")
            if not depth.is_floating_point() or tuple(depth.shape) != (count, *size):
                raise ValueError(
                    f"{scenes.path} has depth of shape {tuple(depth.shape)} for {count} pictures of {size}"
                )
        except ValueError as error:
            yield Broken(self.location, "", str(error))
            return
        for row, caption in enumerate(captions):
            yield SceneRecord(f"{scenes.path.stem}-{row:06d}", rgb[row], depth[row], caption)


def find_shards(locations: list[str]) -> list[Shard]:
    """The shards of locations in a fixed order.

    A location is a tar or a pattern of tars (``shards/{000..099}.tar``, ``*.tar``), a folder of tars, a folder of
    scenes, or a folder of images with their files; each may be a URL that fsspec knows (``s3://bucket/...``).

    Raises:
        ValueError: nothing there; two shards of one name.
        ModuleNotFoundError: the package for a kind of URL is missing.
    """
    shards = [shard for location in locations for shard in _find(location)]
    seen: dict[str, Shard] = {}
    for shard in shards:
        other = seen.setdefault(shard.name, shard)
        if other is not shard:
            raise ValueError(
                f"{other.location} and {shard.location} would both be called {shard.name}: work on them one by one, "
                "with a folder for each."
            )
    return shards


def _find(location: str) -> list[Shard]:
    fsspec = need("fsspec", "Reading data")
    try:
        system, path = fsspec.core.url_to_fs(location)
    except ImportError as error:
        raise ModuleNotFoundError(f"{location} needs one more package: {_first_line(error)}") from None
    except ValueError as error:
        raise ValueError(f"{location} cannot be opened: {_first_line(error)}") from None
    protocol = "" if "file" in system.protocol else location.split("://")[0] + "://"
    if "{" in location:
        braceexpand = need("braceexpand", "Patterns of shards")
        return [TarShard(name) for name in braceexpand.braceexpand(location)]
    if any(sign in location for sign in "*?["):
        names = sorted(name for name in system.glob(path) if name.endswith(_TAR))
        if not names:
            raise ValueError(f"No .tar file matches {location}: check the pattern.")
        return [TarShard(protocol + name) for name in names]
    if system.isfile(path):
        if path.endswith(_TAR):
            return [TarShard(protocol + path)]
        raise ValueError(f"{location} is neither a folder nor a .tar shard: give one of these.")
    if not system.isdir(path):
        raise ValueError(f"{location} does not exist: give a folder, a .tar shard or a pattern of them.")
    return _in_folder(system, path, protocol, location)


def _in_folder(system: Any, path: str, protocol: str, location: str) -> list[Shard]:
    names = sorted(system.find(path))
    tars = [name for name in names if name.endswith(_TAR)]
    if tars:
        return [TarShard(protocol + name) for name in tars]
    if not protocol and any(name.endswith(".safetensors") for name in names):
        return [SceneShard(str(scenes.path)) for scenes in read_shards(path)]
    whole, unpaired = pair_files((name[len(path) :].lstrip("/"), name) for name in names)
    if not whole:
        raise ValueError(f"{location} holds neither .tar shards nor images: give the folder that has them.")
    parts = [whole[first : first + FOLDER_SHARD] for first in range(0, len(whole), FOLDER_SHARD)]
    said = [unpaired, *[()] * (len(parts) - 1)]  # once, with the first
    return [FolderShard(protocol + path, number, part, said[number]) for number, part in enumerate(parts)]


def _first_line(error: BaseException) -> str:
    text = str(error.args[0] if error.args else error).split(" @ <")[0].strip()
    return (text.splitlines() or [type(error).__name__])[0].rstrip(".")
