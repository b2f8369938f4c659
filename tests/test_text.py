"""Word-level text features."""

import pytest
import torch

from mforce.mforce_core import load_text_encoder
from mforce.mforce_core.encoders.words import WordTextEncoder
from mforce.mforce_core.weights.tensor_files import CheckpointError


@pytest.fixture
def encoder() -> WordTextEncoder:
    return WordTextEncoder.random(["blue", "cube", "red"], 6, 4, seed=3)


def test_words_keep_their_vector_and_order(encoder: WordTextEncoder) -> None:
    first, second = encoder.encode(["Red, CUBE!", "cube red"])
    assert first.shape == (4, 6)
    assert torch.equal(first[0], second[1])
    assert torch.equal(first[1], second[0])
    assert torch.equal(first[2:], encoder.encode([""])[0, 2:])


def test_unknown_words_are_named_and_share_a_vector(encoder: WordTextEncoder) -> None:
    assert encoder.unknown_words("a red zebra, a zebra") == ["a", "zebra"]
    features = encoder.encode(["zebra quagga"])[0]
    assert torch.equal(features[0], features[1])
    assert not torch.equal(features[0], features[2])


def test_long_prompts_are_cut(encoder: WordTextEncoder) -> None:
    assert torch.equal(encoder.encode(["red " * 9])[0], encoder.encode(["red red red red"])[0])


def test_file_round_trip(encoder: WordTextEncoder, tmp_path) -> None:
    encoder.save(tmp_path / "text_encoder.safetensors")
    again = load_text_encoder(tmp_path)
    assert (again.vocabulary, again.length) == (encoder.vocabulary, encoder.length)
    assert torch.equal(again.encode(["blue cube"]), encoder.encode(["blue cube"]))


def test_foreign_files_are_refused(tmp_path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "text_encoder.safetensors")
    with pytest.raises(CheckpointError, match="not a word-level text encoder"):
        load_text_encoder(tmp_path)
