"""Pictures of clips as they were held: turned and mirrored as the file says."""

from __future__ import annotations

from typing import Any

import numpy as np

from .opening import import_av

_MATRIX = "DISPLAYMATRIX"
#: Kinds of data beside a frame that FFmpeg may ever have, by their numbers.
_KINDS = range(64)


def upright(picture: np.ndarray, frame: Any) -> np.ndarray:
    """A picture turned and mirrored by the matrix that a phone writes into its files.

    It holds a, b, u, c, d, v and more (ISO/IEC 14496-12) and takes a pixel from (x, y) to (a x + c y, b x + d y).
    """
    said = _beside(frame).get(_MATRIX)
    if said is None:
        return picture
    a, b, _, c, d = np.frombuffer(said, np.int32)[:5].tolist()
    turned = abs(a) < abs(b)
    right, down = (c, b) if turned else (a, d)
    picture = picture.swapaxes(0, 1) if turned else picture
    return picture[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def _beside(frame: Any) -> Any:
    """The data beside a frame, by the names of their kinds.

    PyAV 18 and earlier give none of them where one has no name there, as Exif in a JPEG of a camera and the number of
    the eye in spatial video: FFmpeg takes those away first.
    """
    av = import_av()
    try:
        return frame.side_data
    except ValueError:
        named = {kind.value for kind in av.sidedata.sidedata.Type}
        graph = av.filter.Graph()
        shape = {"width": frame.width, "height": frame.height, "format": frame.format}
        source, sink = graph.add_buffer(**shape, time_base=frame.time_base), graph.add("buffersink")
        deleted = [graph.add("sidedata", f"mode=delete:type={kind}") for kind in _KINDS if kind not in named]
        graph.link_nodes(source, *deleted, sink).configure()
        graph.push(frame)
        return graph.pull().side_data
