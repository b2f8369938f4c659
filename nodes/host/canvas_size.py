"""Whether a model can make pictures of a size: small models know the size that they were trained at and no other."""

from __future__ import annotations

from ...mforce_core.release import PATCH_SIZE

#: How many times the area of the training pictures is worth a word, and how many make noise for certain.
_DOUBTFUL, _HOPELESS = 2.0, 9.0


def canvas_problem(grid: tuple[int, int], trained: tuple[int, int] | None) -> tuple[str, bool] | None:
    """A sentence on a canvas that is larger than those that the model was trained at, and whether it is hopeless.

    Args:
        grid: rows and columns of tokens.
        trained: (width, height) in pixels, where the checkpoint says so; other models are taken at any size.
    """
    if trained is None:
        return None
    rows, columns = grid
    height, width = PATCH_SIZE * rows, PATCH_SIZE * columns
    ratio = width * height / (trained[0] * trained[1])
    if ratio <= _DOUBTFUL:
        return None
    sizes = f"This model was trained at {trained[0]}x{trained[1]} and is asked for {width}x{height}"
    hopeless = ratio >= _HOPELESS
    effect = "which gives noise" if hopeless else "which may look wrong"
    return f"{sizes}, {effect}: set width and height to {trained[0]} and {trained[1]}.", hopeless
