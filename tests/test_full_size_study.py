"""What the study of depth at full size measures: seams of tiles, and the ways beside each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from mforce.cli.app import app
from mforce.evaluation.full_size_study import _measures
from mforce.mforce_core.full_size.tiles import Blend, plan_tiles
from mforce.mforce_core.settings import TILE_OVERLAP

SIDE, WHOLE = 128, 512


@pytest.mark.parametrize("place", [0, 8])
def test_a_seam_is_where_tiles_end_and_not_what_the_model_does_in_every_token(place: int) -> None:
    """Tiles with steps on a line of every token: blended they show no seam, written over each other they do."""
    generator = torch.Generator().manual_seed(0)
    blend, hard = Blend(np.empty((WHOLE, WHOLE), np.float32)), np.empty((WHOLE, WHOLE), np.float32)
    for tile in plan_tiles((WHOLE, WHOLE), (SIDE, SIDE), TILE_OVERLAP):
        values = _tile(generator, place)
        blend.add(tile, values)
        hard[tile.place] = values.numpy()
    blended, cut = (_seam(torch.from_numpy(logs).exp()) for logs in (blend.finish(), hard))
    assert blended < 1.1
    assert cut > 1.5


def test_every_way_is_measured_beside_the_enlarged_map(tmp_path: Path) -> None:
    file = tmp_path / "full_size.json"
    words = ("study", "full-size", "--factors", "2", "--count", 2, "--size", 32, "--json", file)
    ran = CliRunner().invoke(app, [str(word) for word in words])
    assert ran.exit_code == 0, ran.output
    rows = {row["name"]: row for row in json.loads(file.read_text())["rows"]}
    enlarged = rows["enlarged"]
    assert (enlarged["absrel_ratio"], enlarged["band_ratio"]) == (1, 1)
    assert 0 < enlarged["absrel"] < 1
    guided = rows["enlarged, guided by the picture"]
    assert guided["band"] == pytest.approx(enlarged["band"] * guided["band_ratio"], rel=1e-4)
    assert guided["band"] < enlarged["band"]


def _tile(generator: torch.Generator, place: int) -> Tensor:
    """Log depth with an offset of the tile's own, fine noise, and steps on one line of every token."""
    token = torch.arange(SIDE) // 16 if place == 0 else (torch.arange(SIDE) + 8) // 16
    steps = 0.02 * torch.rand(10, 10, generator=generator)
    offset = 0.02 * torch.randn(1, generator=generator)
    return offset + steps[token][:, token] + 0.002 * torch.rand(SIDE, SIDE, generator=generator)


def _seam(made: Tensor) -> float:
    exact = torch.ones(1, WHOLE, WHOLE)
    across_borders, before = _measures(made[None], exact, 0.0, SIDE)[3:5]
    return float(across_borders / before)
