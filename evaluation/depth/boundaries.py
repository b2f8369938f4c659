"""How well depth edges are met: F1 of occluding contours, as Depth Pro and as MoGe define it.

Depth Pro: arXiv 2410.02073, ``eval/boundary_metrics.py`` of apple/ml-depth-pro; MoGe: ``moge/test/metrics.py``. Neither
needs an alignment in scale. Pairs with a pixel that does not count are left out; Depth Pro knows no such pixels.
"""

from __future__ import annotations

import numpy as np
import torch

_THRESHOLDS = np.linspace(0.05, 0.25, 10)
#: MoGe's are rounded to float32, which decides where depth has few levels.
_MOGE_THRESHOLDS = torch.linspace(0.05, 0.25, 10).tolist()
_LEAST_DEPTH = 1e-6


def depth_pro_f1(depth: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Depth Pro's scale-invariant boundary F1: weighted mean over ten ratios from 1.05 to 1.25.

    Precision and recall are means over the four directions in which the nearer neighbor of a pixel can lie.

    Args:
        depth, truth: (H, W).
        mask: (H, W) bool.
    """
    near_p, near_g = (1 / np.clip(map_, _LEAST_DEPTH, None) for map_ in (depth, truth))
    steps = []
    for axis in (1, 0):
        (a, b), (c, d) = (_neighbors(near, axis) for near in (near_p, near_g))
        first, second = _neighbors(mask, axis)
        both = first & second
        for up_p, up_g in ((b[both] / a[both], d[both] / c[both]), (a[both] / b[both], c[both] / d[both])):
            steps.append((up_p, up_g))
    scores = [_f1_of_directions(steps, 1 + threshold) for threshold in _THRESHOLDS]
    return float(np.average(scores, weights=1 + _THRESHOLDS))


def moge_f1(depth: np.ndarray, truth: np.ndarray, mask: np.ndarray, radius: int = 1) -> float:
    """MoGe's boundary F1: of the pairs of pixels within a radius, those whose depths differ by 5% to 25%.

    Args:
        depth, truth: (H, W).
        mask: (H, W) bool.
        radius: 1, 2 or 3 in its reports.
    """
    height, width = mask.shape
    inner = (slice(radius, height - radius), slice(radius, width - radius))
    pairs = []
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if 0 < dy**2 + dx**2 <= radius**2:
                there = (slice(radius + dy, height - radius + dy), slice(radius + dx, width - radius + dx))
                valid = mask[inner] & mask[there]
                pairs.append(tuple((map_[there] / map_[inner])[valid] for map_ in (depth, truth)))
    predicted, real = (np.concatenate(part) for part in zip(*pairs, strict=True))
    scores = [_f1(predicted > 1 + threshold, real > 1 + threshold) for threshold in _MOGE_THRESHOLDS]
    return float(np.average(scores, weights=_MOGE_THRESHOLDS))


def _neighbors(map_: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    last = map_.shape[axis] - 1
    return np.take(map_, range(last), axis), np.take(map_, range(1, last + 1), axis)


def _f1_of_directions(steps: list[tuple[np.ndarray, np.ndarray]], threshold: float) -> float:
    precision = recall = 0.0
    for predicted, real in steps:
        p, r = predicted > threshold, real > threshold
        hits = int(np.count_nonzero(p & r))
        precision += hits / max(int(np.count_nonzero(p)), 1) / len(steps)
        recall += hits / max(int(np.count_nonzero(r)), 1) / len(steps)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def _f1(predicted: np.ndarray, real: np.ndarray) -> float:
    hits = np.count_nonzero(predicted & real)
    return 2 * hits / max(np.count_nonzero(predicted) + np.count_nonzero(real), 1)
