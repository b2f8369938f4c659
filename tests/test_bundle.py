"""One file with transformer, autoencoder and text encoder, written and used."""

from pathlib import Path

import pytest
import torch

from mforce.mforce_core import load_autoencoder, load_model, load_text_encoder
from mforce.mforce_core.weights.checkpoint import read_header
from mforce.mforce_core.weights.convert import ConversionError, convert_model
from mforce.mforce_core.weights.parts import find_parts

ROOT = Path(__file__).parent.parent
NANO = ROOT / "models" / "nano"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    if not (NANO / "model.safetensors").is_file():
        pytest.skip("the built-in model's weights are not in models/nano")
    out = tmp_path_factory.mktemp("bundle") / "nano.safetensors"
    convert_model(NANO, out, to="fp32", bundle=True)
    return out


def test_all_parts_come_back(bundle):
    parts = find_parts(str(bundle))
    assert (parts.model, parts.text_encoder, parts.vae) == (bundle, bundle, bundle)
    assert parts.trained_size() == find_parts("nano").trained_size()
    assert all(files == [bundle] for files in parts.files().values())
    whole = find_parts("nano")
    for load, ours, theirs in (
        (load_model, parts.model, whole.model),
        (load_autoencoder, parts.vae, whole.vae),
    ):
        found, expected = load(ours, dtype=torch.float32).state_dict(), load(theirs, dtype=torch.float32).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    found, expected = load_text_encoder(parts.text_encoder), load_text_encoder(whole.text_encoder)
    assert (found.vocabulary, found.length) == (expected.vocabulary, expected.length)
    assert torch.equal(found.table, expected.table)


def test_a_bundle_can_be_converted_again(bundle, tmp_path):
    convert_model(bundle, tmp_path / "again.safetensors", to="fp32", bundle=True)
    assert (tmp_path / "again.safetensors").stat().st_size == bundle.stat().st_size
    convert_model(bundle, tmp_path / "alone.safetensors", to="fp32")
    assert not read_header(tmp_path / "alone.safetensors").others
    with pytest.raises(ConversionError, match="no autoencoder to put into the file"):
        convert_model(tmp_path / "alone.safetensors", tmp_path / "none.safetensors", bundle=True)
