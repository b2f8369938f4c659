"""Which files of a plain folder belong to one sample, for our own naming and that of well-known collections."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from .sample import Role, role_of

_FOLDER_ROLES: dict[str, Role] = {
    **dict.fromkeys(("rgb", "rgbs", "image", "images", "color", "image_left", "blended_images"), "image"),
    **dict.fromkeys(("depth", "depths", "depth_left", "depth_maps", "rendered_depth_maps"), "depth"),
    **dict.fromkeys(("points", "lidar"), "points"),
    **dict.fromkeys(("mask", "masks", "valid"), "mask"),
    **dict.fromkeys(("caption", "captions", "text"), "caption"),
}

#: Names of the files of a sample that has a folder of its own, as MoGe's data: image.jpg, depth.png, meta.json.
_OWN_NAMES: dict[str, Role] = {
    **dict.fromkeys(("image", "rgb", "color"), "image"),
    "depth": "depth",
    "mask": "mask",
    "meta": "facts",
}

#: Words before or after the name that files of one sample share: rgb_0001.jpg with depth_0001.png (Virtual KITTI),
#: x.png with x_depth.npy and x_depth_mask.npy (DIODE), x_left.png with x_left_depth.npy (TartanAir).
_AFFIX = re.compile(
    r"^(?:(?P<before>rgb|image|img|color|sync_depth|depth_plane|depth|mask)[_-])?(?P<name>.+?)"
    r"(?:[_-](?P<after>depth_mask|depth|mask|rgb|image|img|color))?$",
    re.IGNORECASE,
)

#: Files by ending, as in (("jpg", "a/x.jpg"), ("depth.png", "a/x.depth.png")).
Files = tuple[tuple[str, str], ...]


class Pairing(NamedTuple):
    """The samples by key, and sentences about the depth, points and masks that belong to no picture."""

    samples: tuple[tuple[str, Files], ...]
    unpaired: tuple[str, ...]


def folder_key(path: str) -> tuple[str, str | None]:
    """The sample and the ending of a file by its path below the folder; no ending for files that are not used.

    ``a/x.jpg``, ``a/x.depth.png`` and ``a/x.txt`` are one sample, and so are ``rgb/x.jpg`` and ``depth/x.png``.
    """
    *parents, name = path.split("/")
    if name.startswith("."):
        return path, None
    role = next((_FOLDER_ROLES[part.lower()] for part in parents if part.lower() in _FOLDER_ROLES), None)
    stem, _, suffix = name.rpartition(".")
    inner, _, word = stem.rpartition(".")
    if inner and role_of(f"{word}.{suffix}") is not None:
        stem, ending = inner, f"{word}.{suffix}"
    else:
        ending = suffix if role in (None, "image", "caption") else f"{role}.{suffix}"
    kept = [part for part in parents if part.lower() not in _FOLDER_ROLES]
    return "/".join([*kept, stem]), ending if role_of(ending) is not None else None


def pair_files(paths: Iterable[tuple[str, str]]) -> Pairing:
    """Put the files of a folder together.

    Args:
        paths: of every file, below the folder and whole.
    """
    listed = list(paths)
    names = {below for below, _ in listed}
    own = _sample_folders(names)
    groups: dict[str, list[tuple[str, str]]] = {}
    for below, path in listed:
        folder, _, name = below.rpartition("/")
        if name.startswith("filled_") and f"{folder}/depth_{name[7:]}".lstrip("/") in names:
            continue  # Marigold's NYUv2: depth without holes, beside the measured one
        key, ending = (folder, _own_ending(name)) if folder in own else folder_key(below)
        if ending is not None:
            groups.setdefault(key, []).append((ending, path))
    _join_affixes(groups)
    samples, lonely = [], []
    for key, files in sorted(groups.items()):
        if _has_image(files):
            samples.append((key, tuple(files)))
        else:
            lonely += [(role_of(ending), path) for ending, path in files]
    unpaired = []
    for role in ("depth", "points", "mask"):
        found = sorted(path for kind, path in lonely if kind == role)
        if found:
            example = found[0].rsplit("/", 1)[-1]
            unpaired.append(f"{len(found)} {role} file(s) have no picture of their name, {example} for one")
    return Pairing(tuple(samples), tuple(unpaired))


def _sample_folders(names: Iterable[str]) -> set[str]:
    """Folders that hold one sample: one picture and one depth map, called so and nothing more."""
    roles: dict[str, list[Role]] = {}
    for below in names:
        folder, _, name = below.rpartition("/")
        ending = _own_ending(name)
        role = None if ending is None else role_of(ending)
        if folder and role in ("image", "depth"):
            roles.setdefault(folder, []).append(role)
    return {folder for folder, found in roles.items() if sorted(found) == ["depth", "image"]}


def _own_ending(name: str) -> str | None:
    """The ending of a file in a folder of its own sample, None for one that is not used."""
    stem, _, suffix = name.rpartition(".")
    role = _OWN_NAMES.get(stem.lower())
    ending = suffix if role in ("image", "facts") else f"{role}.{suffix}"
    return ending if role is not None and role_of(ending) == role else None


def _join_affixes(groups: dict[str, list[tuple[str, str]]]) -> None:
    """Give depth and masks whose names differ by a word only to their picture's group."""
    pictures: dict[str, list[str]] = {}
    for key, files in groups.items():
        name, role = _without_affix(key)
        if role is None and _has_image(files):
            pictures.setdefault(name, []).append(key)
    for key in list(groups):
        name, role = _without_affix(key)
        homes = pictures.get(name, [])
        if key in homes or len(homes) != 1 or (role is None and _has_image(groups[key])):
            continue
        moved: list[tuple[str, str]] = []
        kept: list[tuple[str, str]] = []
        for ending, path in groups[key]:
            word, _, suffix = ending.rpartition(".")
            own = f"{role}.{suffix}" if role is not None and word in ("", "depth", role) else ending
            joined = role_of(own) in ("depth", "points", "mask")
            (moved if joined else kept).append((own if joined else ending, path))
        groups[homes[0]] += moved
        groups[key] = kept
        if not kept:
            del groups[key]


def _without_affix(key: str) -> tuple[str, Role | None]:
    """The key without a word for what the file is, and the role that this word gives, if it is not a picture's."""
    folder, slash, stem = key.rpartition("/")
    found = _AFFIX.match(stem)
    if found is None:
        return key, None
    words = {(found["before"] or "").lower(), (found["after"] or "").lower()}
    role: Role | None = None
    if words & {"mask", "depth_mask"}:
        role = "mask"
    elif words & {"depth", "sync_depth", "depth_plane"}:
        role = "depth"
    return folder + slash + found["name"], role


def _has_image(files: Iterable[tuple[str, str]]) -> bool:
    return any(role_of(ending) == "image" for ending, _ in files)
