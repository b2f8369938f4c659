"""Two plots side by side in one picture file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def two_plots(path: Path, **settings: Any) -> Iterator[tuple[Any, Any, Any]]:
    """The figure and its two axes to draw on, written to ``path`` at the end; needs matplotlib and no screen.

    ``settings`` are those of :func:`matplotlib.pyplot.subplots`.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained", **settings)
    yield figure, left, right
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
