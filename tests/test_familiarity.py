"""Pictures that a small model does not know: statistics of latents, and the sentence that is said."""

import pytest
import torch
from safetensors.torch import save_file

from mforce.mforce_core.encoders import familiarity
from mforce.mforce_core.encoders.familiarity import (
    FILE,
    Familiarity,
    features,
    fit_familiarity,
    load_familiarity,
)
from mforce.mforce_core.encoders.latent_space import pack_2x2
from mforce.training.nano.familiarity import read_latents


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    """Pictures whose components vary in mean and spread, as scenes do."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(1500, 32, 1, 1, generator=generator) + 0.5
    middle = 0.3 * torch.randn(1500, 32, 1, 1, generator=generator)
    return pack_2x2(middle + spread * torch.randn(1500, 32, 8, 8, generator=generator))


@pytest.fixture(scope="module")
def known(latents) -> Familiarity:
    return fit_familiarity(latents)


def test_one_in_fifty_of_the_training_pictures_is_beyond_the_limit(known, latents):
    assert float(known.is_unfamiliar(latents[1200:]).float().mean()) == pytest.approx(0.02, abs=0.004)


def test_distance_is_that_of_mahalanobis(latents, monkeypatch):
    monkeypatch.setattr(familiarity, "_LEAST_VARIANCE", 0.0)
    known = fit_familiarity(latents)
    described = features(latents).double()
    centered = described - described[:1200].mean(0)
    inverse = torch.linalg.inv(torch.cov(described[:1200].T))
    expected = torch.einsum("bi,ij,bj->b", centered, inverse, centered).sqrt()
    torch.testing.assert_close(known.distance(latents).double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        lambda latents: latents + 1.5,
        lambda latents: 3 * latents,
        lambda latents: latents.roll(1, 3) / 2 + latents / 2,
    ],
    ids=["moved", "spread", "blurred"],
)
def test_other_statistics_are_unfamiliar(known, latents, change):
    assert known.is_unfamiliar(change(latents[1200:])).float().mean() > 0.9


def test_any_size_of_picture(known, latents):
    wide = torch.cat((latents[:4], latents[:4]), dim=3)
    assert known.distance(wide).shape == (4,)


def test_a_file_beside_the_autoencoder(known, latents, tmp_path):
    assert load_familiarity(tmp_path) is None
    known.save(tmp_path / FILE)
    loaded = load_familiarity(tmp_path / "autoencoder.safetensors")
    assert torch.equal(loaded.distance(latents), known.distance(latents))
    save_file({"mean": torch.zeros(3)}, tmp_path / FILE)
    with pytest.raises(ValueError, match="does not hold statistics"):
        load_familiarity(tmp_path)


def test_too_few_pictures(latents):
    with pytest.raises(ValueError, match="at least 1000 pictures, not 999"):
        fit_familiarity(latents[:999])


def test_latents_of_a_folder(latents, tmp_path):
    with pytest.raises(ValueError, match="no encoded samples"):
        read_latents(tmp_path, 10)
    for number in range(3):
        save_file({"rgb": latents[number * 20 : number * 20 + 20]}, tmp_path / f"latents-{number}.safetensors")
    read = read_latents(tmp_path, 30)
    assert torch.equal(read, torch.cat([latents[number * 20 : number * 20 + 10] for number in range(3)]))
