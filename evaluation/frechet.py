"""Fréchet distance of pictures in the features of a small model's own autoencoder.

Inception's features, trained on photographs, say little of small rendered pictures. Here the latents are the features,
and every cell of a picture is a sample, so that a few dozen pictures give a covariance of full rank, as in the distance
of single images (Shaham et al., arXiv 1905.01164). It is not comparable with FID in other features.
"""

import numpy as np
from scipy.linalg import eigh
from torch import Tensor

from .intervals import Estimate

_RESAMPLES = 200


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` of samples (n, C) (Dowson & Landau, 1982).

    The trace of the root is the sum of the roots of the eigenvalues of ``C1^(1/2) C2 C1^(1/2)``, which is symmetric.
    """
    means = first.mean(0) - second.mean(0)
    one, two = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    values, vectors = eigh(one)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(eigh(root @ two @ root, eigvals_only=True).clip(min=0)).sum()
    return float(means @ means + np.trace(one) + np.trace(two) - 2 * cross)


def cell_distance(made: Tensor, real: Tensor) -> Estimate:
    """Distance between the cells of made and of real pictures, tokens (B, N, C), with its bootstrap over pictures.

    Resamples hold some pictures twice, spread less than all pictures do, and lie farther apart: their percentiles are
    moved by the mean of this excess, so that the interval is one around the distance.
    """
    found, wanted = (tokens.double().cpu().numpy() for tokens in (made, real))
    value = frechet(_cells(found), _cells(wanted))
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(_RESAMPLES if len(found) > 1 else 0):
        rows = random.integers(len(found), size=len(found))
        others = rows if len(found) == len(wanted) else random.integers(len(wanted), size=len(wanted))
        drawn.append(frechet(_cells(found[rows]), _cells(wanted[others])))
    low, high = np.percentile(drawn, [2.5, 97.5]) - (np.mean(drawn) - value) if drawn else (value, value)
    return Estimate(value, max(float(low), 0.0), float(high))


def _cells(tokens: np.ndarray) -> np.ndarray:
    return tokens.reshape(-1, tokens.shape[-1])
