"""How many pictures a second are read and scored without a model: ``python -m mforce.benchmarks.depth_scoring``.

Pictures of 640x480 in MoGe's layout with saved maps, written for this: JPEG, 16-bit logarithmic PNG, NumPy arrays. One
process reads and scores them by each protocol; CPU seconds are its own, to which other programs do not add.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..evaluation.depth.datasets import DataSpec
from ..evaluation.depth.predictors import FromFiles
from ..evaluation.depth.protocols import protocol
from ..evaluation.depth.scorer import DepthJob, Scorer
from .process_memory import status_bytes

WIDTH, HEIGHT = 640, 480
#: Reading and scoring on two cores must not be slower than this, in pictures a second.
TARGET = 50


def write_pictures(folder: Path, count: int) -> None:
    """Slanted, wavy surfaces with a step, and predictions with noise."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    (folder / "maps").mkdir()
    for number in range(count):
        here = folder / "moge" / f"{number:03d}"
        here.mkdir(parents=True)
        depth = 2 + rows / 240 + np.hypot(columns - 300 - 9 * number, rows - 200) / 100 + (columns > 400)
        depth = depth + random.normal(0, 0.01, depth.shape)
        pixels = np.stack([columns + 9 * number, 2 * rows, columns * rows // 97], -1) % 256
        Image.fromarray(pixels.astype(np.uint8)).save(here / "image.jpg", quality=90)
        near, far = float(depth.min()), float(depth.max())
        text = PngInfo()
        text.add_text("near", repr(near))
        text.add_text("far", repr(far))
        levels = 1 + np.round(np.log(depth / near) / np.log(far / near) * 65533)
        Image.fromarray(levels.astype(np.uint16)).save(here / "depth.png", pnginfo=text)
        (here / "meta.json").write_text('{"intrinsics": [[0.9, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]]}')
        guess = np.sqrt(depth) + random.normal(0, 0.02, depth.shape)
        np.save(folder / "maps" / f"{number:03d}.npy", guess.astype(np.float32))
    (folder / "moge" / ".index.txt").write_text("\n".join(f"{number:03d}" for number in range(count)) + "\n")


def measure(folder: Path, count: int, name: str, alignments: tuple[str, ...]) -> dict[str, Any]:
    """Wall and CPU seconds a picture of one protocol, and the largest memory of the process so far."""
    job = DepthJob(DataSpec("nyuv2", folder / "moge"), FromFiles(folder / "maps", "depth"), protocol(name, alignments))
    scorer = Scorer(job, "cpu")
    scorer(0)
    wall, cpu = time.perf_counter(), time.process_time()
    rows = [scorer(number) for number in range(count)]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert not any(row.reason for row in rows)
    return {
        "alignments": job.protocol.alignments,
        "wall_seconds_a_picture": wall / count,
        "cpu_seconds_a_picture": cpu / count,
        "pictures_a_second_on_two_cores": 2 * count / cpu,
        "peak_memory_MiB": status_bytes("VmHWM") // 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure reading and scoring of depth without a model.")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cases = {"moge, affine depth": ("moge", ("affine-depth",)), "moge": ("moge", ()), "marigold": ("marigold", ())}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder, args.pictures)
        found = {case: measure(folder, args.pictures, *chosen) for case, chosen in cases.items()}
    report = json.dumps({"pictures": args.pictures, "target_on_two_cores": TARGET, "cases": found}, indent=1)
    print(report)
    if args.out is not None:
        args.out.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
