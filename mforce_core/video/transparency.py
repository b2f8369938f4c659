"""Transparent pixels of clips: which frames may have them, who decodes them, and the white that they are put on."""

from __future__ import annotations

from typing import Any

import numpy as np

from .opening import import_av

#: Kinds of WebM, whose own decoders in FFmpeg leave transparency out, and the decoders that do not.
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_PALETTE = "pal8"


def decoder_of(stream: Any) -> Any:
    """The codec context that decodes a stream, transparency included."""
    own = stream.codec_context
    name = _WITH_ALPHA.get(own.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return own
    try:
        return import_av().CodecContext.create(name, "r")
    except ValueError:  # an FFmpeg that was built without it
        return own


def has_alpha(form: Any) -> bool:
    """Whether pixels of a format may be transparent; a palette may hold such colors."""
    return form.name == _PALETTE or any(part.is_alpha for part in form.components)


def on_white(picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colors (H, W, 3) uint8 over white, by their opacity (H, W) in the levels of its dtype."""
    opaque = alpha[..., None].astype(np.float32) / np.iinfo(alpha.dtype).max
    return (picture * opaque + 255 * (1 - opaque)).round().astype(np.uint8)
