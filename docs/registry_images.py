"""Draw the icon and the banner of the pack's page in the Comfy Registry: a rendered scene that turns into its depth.

Usage, in the root of the repository: python docs/registry_images.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mforce.mforce_core.depth.preview import depth_preview
from mforce.scenes.layout import sample_layouts
from mforce.scenes.render import render

IMAGES = Path(__file__).resolve().parent / "images"
_SCENE = 5  # of seed 0
_SIDE = 400  # pixels; the registry takes icons of up to 800x400
_HEIGHT = 343  # of the banner, whose sides are as 21 to 9


if __name__ == "__main__":
    rgb, distance = render(sample_layouts(1, seed=0, start=_SCENE), _SIDE, 2)
    picture = (rgb[0].movedim(0, -1) * 255).round().byte().numpy()
    depth = depth_preview(distance)[0]
    rows, columns = np.mgrid[:_SIDE, :_SIDE] / _SIDE
    edge = columns - 0.25 * (0.5 - rows) - 0.5  # to the right of which the icon shows the depth
    icon = np.where((edge > 0)[..., None], depth, picture)
    icon[np.abs(edge) < 0.006] = 255
    Image.fromarray(icon).save(IMAGES / "icon.png", optimize=True)
    banner = np.concatenate([picture, depth], axis=1)[-_HEIGHT:]
    Image.fromarray(banner).save(IMAGES / "banner.jpg", quality=90)
