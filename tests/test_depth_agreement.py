"""Alignments and measures give the numbers of MoGe's, Marigold's and Depth Pro's own functions on the same maps.

``data/depth_harnesses`` has the maps and what the originals made of them; its README says how.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from mforce.evaluation.depth.alignment import Limits, align
from mforce.evaluation.depth.boundaries import depth_pro_f1, moge_f1
from mforce.evaluation.depth.metrics import DEPTH_MEASURES, MOGE_EPSILON, depth_errors, pixel_errors
from mforce.evaluation.depth.samples import nearest_samples

DATA = Path(__file__).parent / "data" / "depth_harnesses"
RECORDED = json.loads((DATA / "alignments.json").read_text(encoding="utf-8"))
CASES = sorted(RECORDED["cases"])
MOGE = ("scale", "affine-depth", "affine-disparity")
MARIGOLD = ("least-square", "least-square thinned", "least-square-disparity")


def maps(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction, truth and mask, (H, W)."""
    if case == "motorcycle":
        return motorcycle()
    with np.load(DATA / "maps.npz") as data:
        prediction, truth, mask = (data[f"{case}/{part}"] for part in ("prediction", "truth", "mask"))
    return prediction, truth, mask


def motorcycle() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Middlebury's measured motorcycle, and a prediction that is wrong in a way that no fit repairs."""
    pictures = pytest.importorskip("skimage.data")
    try:
        left, _, disparity = pictures.stereo_motorcycle()
    except Exception as error:
        pytest.skip(f"the picture cannot be had: {error}")
    known = np.isfinite(disparity)
    truth = 193.001 * 994.978 / (np.where(known, disparity, 0) + 32.778) / 1000
    light = left.astype(np.float64).mean(-1) / 255
    prediction = np.sqrt(truth + 1.5) * (1 + 0.1 * light)
    return prediction.astype(np.float32), np.where(known, truth, 0).astype(np.float32), known


def moge_errors(case: str, alignment: str) -> dict[str, float]:
    prediction, truth, mask = maps(case)
    aligned = align(alignment, prediction, truth, mask, Limits(), "depth")
    return pixel_errors(aligned[mask], truth[mask], MOGE_EPSILON, negative_hits=True)


@pytest.mark.parametrize("alignment", MOGE)
@pytest.mark.parametrize("case", CASES)
def test_moge(case: str, alignment: str) -> None:
    found = moge_errors(case, alignment)
    for run in ("float64", "float32_gels"):
        recorded = RECORDED["cases"][case][f"moge_{run}"][alignment]
        assert {name: found[name] for name in recorded} == pytest.approx(recorded, rel=1e-6)


@pytest.mark.parametrize("alignment", MARIGOLD)
@pytest.mark.parametrize("case", CASES)
def test_marigold(case: str, alignment: str) -> None:
    prediction, truth, mask = maps(case)
    name, _, thinned = alignment.partition(" ")
    limits = Limits(**RECORDED["limits"], fit_side=48 if thinned else None)
    if name == "least-square-disparity":  # the original reads disparity from its files
        aligned = align(name, 1 / prediction, truth, mask, limits, "disparity")
    else:
        aligned = align(name, prediction, truth, mask, limits, "depth")
    found = depth_errors(aligned, truth, mask)
    assert set(found) == set(DEPTH_MEASURES)
    for run in ("float32",) if thinned else ("float64", "float32"):  # it thins float64 maps and their mask differently
        assert found == pytest.approx(RECORDED["cases"][case][f"marigold_{run}"][alignment], rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_boundaries(case: str) -> None:
    prediction, truth, mask = maps(case)
    aligned = align("affine-depth", prediction, truth, mask, Limits(), "depth")
    recorded = RECORDED["cases"][case]
    found = {f"moge_f1_{radius}": moge_f1(aligned, np.where(mask, truth, 1), mask, radius) for radius in (1, 2, 3)}
    assert found == pytest.approx(recorded["moge_f1_float64"], rel=1e-6)
    if "depth_pro_f1" in recorded:
        assert mask.all()
        assert depth_pro_f1(prediction, truth, mask) == pytest.approx(recorded["depth_pro_f1"], rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_samples_are_the_same_pixels(case: str) -> None:
    _, _, mask = maps(case)
    rows, columns = nearest_samples(mask)
    assert {
        "count": len(rows),
        "sum_of_indices": int((rows * mask.shape[1] + columns).sum()),
    } == RECORDED["cases"][case]["samples"]
