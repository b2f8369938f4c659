"""Reusing blocks between steps: exact where nothing is reused, near it where little has changed, and cheaper."""

from pathlib import Path

import pytest
import torch

from mforce import Pipeline
from mforce.mforce_core import load_model, sample
from mforce.mforce_core.model.block_cache import BlockCache
from mforce.mforce_core.model.blocks import SingleStreamBlock
from mforce.mforce_core.settings import Settings

GOLDEN = Path(__file__).parent / "golden" / "v2"
GRID = (2, 3)


@pytest.fixture(scope="module")
def model():
    return load_model(GOLDEN)


@pytest.fixture(scope="module")
def call(model):
    """The model at noise levels of its own, on one input."""
    draw = torch.Generator().manual_seed(0)
    config = model.config
    rgb = torch.randn(2, 6, config.in_channels, generator=draw)
    depth = torch.randn(2, 6, config.depth_channels, generator=draw)
    text = torch.randn(2, 5, config.context_in_dim, generator=draw)

    def run(t, **options):
        return model(rgb, depth, text, torch.full((2,), t), torch.full((2,), t), GRID, **options)

    return run


def equal(ones, others) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ones, others, strict=True))


@torch.no_grad()
def test_the_residual_is_that_of_the_blocks_left_out(call) -> None:
    """At the same noise levels what is reused is what would be computed."""
    cache = BlockCache(0.1)
    plain, first, second = call(0.5), call(0.5, cache=cache), call(0.5, cache=cache)
    assert (cache.asked, cache.reused) == (2, 1)
    assert equal(plain, first)
    for found, wanted in zip(second, plain, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_what_has_changed_is_computed(call) -> None:
    cache = BlockCache(1e-4)
    call(0.9, cache=cache)
    assert equal(call(0.2, cache=cache), call(0.2))
    assert cache.reused == 0


@torch.no_grad()
def test_blocks_left_out_do_not_run(call, monkeypatch) -> None:
    ran = []
    forward = SingleStreamBlock.forward
    monkeypatch.setattr(SingleStreamBlock, "forward", lambda self, *rest: ran.append(self) or forward(self, *rest))
    cache = BlockCache(0.1)
    call(0.5, cache=cache)
    whole = len(ran)
    call(0.5, cache=cache)
    assert 0 < len(ran) - whole < whole  # the depth decoder's alone


@torch.no_grad()
def test_conditionings_are_kept_apart(call) -> None:
    cache = BlockCache(0.5)
    for key in ("prompt", "nothing", "prompt"):
        call(0.5, cache=cache, cache_key=key)
    assert (cache.asked, cache.reused) == (3, 1)


def test_a_rollout_with_a_cache_is_near_the_one_without() -> None:
    """On nano: a model with random weights changes much more between steps."""
    nano = Pipeline.load("nano", device="cpu")
    text = nano.features(["a red sphere on a wooden floor"])
    options = {"steps": 50, "log2_alpha": 5.0, "cfg": 1.0}
    exact = sample(nano.model, text, GRID, **options)
    errors, shares = [], []
    for threshold in (1e-6, 0.03, 0.1):
        cache = BlockCache(threshold)
        found = sample(nano.model, text, GRID, block_cache=cache, **options)
        errors.append(max(float((a - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True)))
        shares.append(cache.reused / cache.asked)
    assert errors[0] == 0
    assert shares[0] == 0 < shares[1] < shares[2] < 1
    assert 0 < errors[1] < errors[2]
    assert errors[1] < 0.1


def test_what_excludes_a_cache_is_said(model) -> None:
    with pytest.raises(ValueError, match="threshold of a block cache"):
        BlockCache(1.5)
    with pytest.raises(ValueError, match="exclude each other"):
        sample(model, torch.zeros(1, 5, 48), GRID, cfg=1.0, block_cache=BlockCache(0.1), cuda_graph=True)
    for fixed in ({"cuda_graph": True}, {"compile": True}):
        with pytest.raises(ValueError, match="`block_cache` excludes `cuda_graph` and `compile`"):
            Settings("joint", "", block_cache=0.1, **fixed)
