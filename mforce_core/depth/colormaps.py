"""Colors for pictures of depth, as tables: ComfyUI brings no matplotlib.

Each map is a row of colors at equal distances, linear between them. Viridis, magma, inferno and plasma are every
15th of the 256 colors that matplotlib publishes under CC0 (the rest is within 0.021 of them); spectral is
ColorBrewer's 11-class Spectral, turned so that 1 is warm.
"""

from __future__ import annotations

import numpy as np

_STOPS = {
    "viridis": (
        "440154 481769 472a7a 433d84 3d4e8a 355e8d 2e6d8e 297b8e 23898e "
        "1f978b 21a585 2eb37c 46c06f 65cb5e 89d548 b0dd2f d8e219 fde725"
    ),
    "magma": (
        "000004 090720 1a1042 311165 4a1079 621980 792282 912b81 aa337d "
        "c23b75 d9466b ec5860 f7725c fc8e64 feaa74 fec68a fde2a3 fcfdbf"
    ),
    "inferno": (
        "000004 0a0722 1e0c45 380962 510e6c 69166e 801f6c 982766 b0315b "
        "c63d4d d94d3d e9612b f47918 fa9407 fcb014 f8cd37 f2ea69 fcffa4"
    ),
    "plasma": (
        "0d0887 2f0596 4903a0 6100a7 7801a8 8e0ca4 a21d9a b42e8d c43e7f "
        "d24f71 de6164 e97257 f3854b f99a3e fdaf31 fdc627 f8df25 f0f921"
    ),
    "spectral": "5e4fa2 3288bd 66c2a5 abdda4 e6f598 ffffbf fee08b fdae61 f46d43 d53e4f 9e0142",
}
COLORMAPS = tuple(_STOPS)


def colorize(values: np.ndarray, name: str) -> np.ndarray:
    """Values in [0, 1] of any shape (...) as RGB (..., 3) float32 in [0, 1]; values beyond take the end's color."""
    stops = np.array([list(bytes.fromhex(stop)) for stop in _STOPS[name].split()]) / 255
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(values, at, channel) for channel in stops.T], -1).astype(np.float32)
