"""Which channel of an OpenEXR file is depth, for the layouts that renderers and compositors write.

A layer or channel whose name speaks of depth comes first. Then a channel that stands alone in its layer: Z without X
and Y, V without U, R without G and B, Y without X or chroma. Alpha, normals, positions, vectors, motion and color
pictures are never taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..exr.names import words

_ALPHA = ("a", "alpha", "opacity")
#: Words for depth, in the names of layers and channels.
_DEPTH = re.compile(
    r"^(z?-?depth\w*|\w*zdepth|\w*worlddepth|\w*scenedepth|hitpz|pz|zbuffer|zdistance|distance|disparity)$"
)
#: Words of names whose numbers are 1 / depth.
_INVERSE = frozenset(["disparity", "disp", "inverse", "inv"])
#: Words for what is no depth, even alone in its layer or in a layer that also speaks of depth.
_OTHER = frozenset(
    [
        "normal", "normals", "n", "ng", "ns", "nn", "position", "positions", "p", "pos", "pref", "pworld", "point",
        "points", "vector", "vectors", "velocity", "velocities", "motion", "motionvector", "motionvectors",
        "speed", "flow", "forward", "backward", "uv", "uvs", "uvw", "st", "tangent", "bitangent", "albedo",
        "diffuse", "specular", "color", "colour", "combined", "beauty", "crypto", "cryptomatte", "cryptoobject",
        "cryptomaterial", "cryptoasset", "id", "ids", "index", "indexob", "indexma", "object", "material", "mtlid",
        "mask", "matte", "alpha", "opacity", "shadow", "ao", "occlusion", "mist", "fog", "emission", "emit",
        "environment", "subsurface", "transmission", "volume", "count", "samples", "variance", "noise", "error",
        "dof", "derivative", "derivatives", "gradient", "field", "pixel", "dzdx", "dzdy", "nx", "ny", "nz", "sky",
        "lighting", "reflection", "refraction", "gi", "sss",
    ]
)  # fmt: skip
#: Words of copies that come after the plain channel.
_SECOND = frozenset(["denoising", "denoise", "denoised", "noisy", "back", "filtered", "normalized", "right"])
#: In a layer that is called depth, the component that holds it, best first.
_COMPONENTS = ("z", "v", "y", "r", "l", "depth", "distance", "g", "b")
_LONE = ("z", "v", "r", "y")
_LONE_FOES = {"z": "xy", "v": "u", "r": "gb", "y": ("x", "z", "ry", "by")}


class Choice(NamedTuple):
    """The channel that is taken and others that could be depth too, best first."""

    name: str
    others: tuple[str, ...]


class _Channel(NamedTuple):
    name: str
    layer: str
    component: str


def choose_channel(names: Sequence[str], *, gray_color: Sequence[str] = ()) -> Choice | None:
    """The channel that is most likely depth.

    Args:
        names: full names, "layer.channel", the name of a part before them where there are several.
        gray_color: names of R channels that equal the G and B beside them, so that they are no color picture.

    Returns:
        None where none is depth.
    """
    channels = [_split(name) for name in names]
    layers: dict[str, dict[str, _Channel]] = {}
    for channel in channels:
        layers.setdefault(channel.layer, {})[channel.component.lower()] = channel
    data_layers = {channel.layer for channel in channels if channel.component.lower() not in _ALPHA}
    ranked: list[tuple[tuple, str]] = []
    for layer, parts in layers.items():
        rank, best = _best_of_layer(layer, parts, gray_color, alone=data_layers == {layer})
        if best is not None:
            said = words(best.name)
            ranked.append(((rank, bool((_SECOND | _INVERSE) & set(said)), best.name.count("."), best.name), best.name))
    if not ranked:
        data = [channel for channel in channels if channel.component.lower() not in _ALPHA]
        if len(data) == 1 and not _is_other(data[0].name):
            return Choice(data[0].name, ())
        return None
    ranked.sort()
    return Choice(ranked[0][1], tuple(name for _, name in ranked[1:]))


def matching_channels(names: Sequence[str], wanted: str) -> list[str]:
    """Channels called ``wanted``, in whatever layer, or the best of the layer of this name; upper-layer names first."""
    ordered = sorted(names, key=lambda name: (name.count("."), name))
    for fold in (str, str.lower):
        exact = [name for name in ordered if fold(name) == fold(wanted)]
        ends = [name for name in ordered if fold(name).endswith("." + fold(wanted))]
        if exact or ends:
            return exact or ends
    layer = [name for name in ordered if _split(name).layer.lower() == wanted.lower()]
    by_component = {_split(name).component.lower(): name for name in layer}
    best = next((by_component[component] for component in _COMPONENTS if component in by_component), None)
    return [] if best is None else [best]


def is_inverse(name: str) -> bool:
    """Whether a channel's name says that larger is nearer."""
    return not _INVERSE.isdisjoint(words(name))


def _best_of_layer(
    layer: str, parts: dict[str, _Channel], gray_color: Sequence[str], *, alone: bool
) -> tuple[int, _Channel | None]:
    """Rank (lower is better) and channel of the likeliest depth in one layer; no channel where there is none.

    ``alone``: no other layer of the file holds anything but alpha.
    """
    data = {component: channel for component, channel in parts.items() if component not in _ALPHA}
    for component, channel in data.items():
        # "Depth", "zdepth", "Pz": the channel's own name says it.
        if len(component) > 1 and _is_depth(component) and not _is_other(channel.name):
            return 0, channel
    if _is_other(layer):
        return 0, None
    if _is_depth(layer) and not {"x", "y"} <= data.keys() and not {"u", "v"} <= data.keys():
        best = next((data[component] for component in _COMPONENTS if component in data), None)
        if best is None and len(data) == 1:
            (best,) = data.values()
        if best is not None:
            return 0, best
    for rank, component in enumerate(_LONE, 1):
        if component not in data or any(foe in data for foe in _LONE_FOES[component]):
            continue
        # Z may accompany colors. The others mean depth only where the file holds nothing else, or outside of layers.
        if component == "z" or (len(data) == 1 and (alone or not layer)):
            return rank, data[component]
    red = data.get("r")
    if red is not None and red.name in gray_color and alone:
        return len(_LONE) + 1, red
    return 0, None


def _split(name: str) -> _Channel:
    layer, _, component = name.rpartition(".")
    return _Channel(name, layer, component)


def _is_depth(name: str) -> bool:
    # Joined words too: "z_depth", "ZDepth" and "hitPz".
    whole = [part.lower() for part in re.split(r"[^A-Za-z0-9-]+", name)]
    return any(_DEPTH.match(word) for word in [*words(name), *whole])


def _is_other(name: str) -> bool:
    """Whether a name speaks of something that is not depth; depth words win over "world", "object" and the like."""
    said = [word for word in words(name) if word not in ("render", "layer", "view", "image", "final")]
    return any(word in _OTHER for word in said)
