"""The Qwen3 text features, on a tiny random Qwen3 and a tokenizer made here."""

import json
from dataclasses import replace

import pytest
import torch

from mforce.mforce_core.encoders.patch_autoencoder import PatchAutoencoder, save_patch_autoencoder
from mforce.mforce_core.encoders.qwen import LAYERS, load_qwen_text_encoder
from mforce.mforce_core.release import TEXT_TOKENS
from mforce.mforce_core.weights.checkpoint import save_model
from tiny_model import TINY, random_model
from tiny_qwen import HIDDEN, qwen_config

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]


def tiny_qwen(folder, layers=29):
    """A random Qwen3 with more layers than are used, saved with a byte-level tokenizer."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    words = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.add_special_tokens(SPECIAL)
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token=SPECIAL[0]).save_pretrained(folder)
    config = qwen_config(len(vocabulary), layers)
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    return folder, tiny_qwen(folder)


def test_features_are_the_hidden_states_of_the_chat_prompt(qwen):
    folder, whole = qwen
    encoder = load_qwen_text_encoder(folder)
    features = encoder.encode(["a red ball", ""])
    assert features.shape == (2, TEXT_TOKENS, encoder.dim) == (2, 512, 3 * HIDDEN)
    assert features.dtype == torch.float32

    text = "<|im_start|>user\na red ball<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ids = encoder.tokenizer(text).input_ids
    assert ids.count(encoder.tokenizer.convert_tokens_to_ids("<|im_start|>")) == 2
    padded = torch.tensor([ids + [encoder.tokenizer.convert_tokens_to_ids("<|endoftext|>")] * (512 - len(ids))])
    mask = (torch.arange(512) < len(ids)).long()[None]
    with torch.no_grad():
        states = whole(input_ids=padded, attention_mask=mask, output_hidden_states=True).hidden_states
    torch.testing.assert_close(features[:1], torch.cat([states[n] for n in LAYERS], -1), rtol=1e-5, atol=1e-5)


def test_layers_that_are_not_read_are_not_loaded(qwen):
    encoder = load_qwen_text_encoder(qwen[0])
    assert len(encoder.model.layers) == LAYERS[-1]


def test_long_prompts_are_cut(qwen):
    features = load_qwen_text_encoder(qwen[0]).encode(["ball " * 500])
    assert features.shape[1] == TEXT_TOKENS
    assert torch.isfinite(features).all()


def test_pipeline_folders_are_read(qwen, tmp_path):
    folder, _ = qwen
    for part in ("text_encoder", "tokenizer"):
        (tmp_path / part).symlink_to(folder, target_is_directory=True)
    pair = [load_qwen_text_encoder(path).encode(["ball"]) for path in (folder, tmp_path)]
    assert torch.equal(*pair)


def test_the_command_line_runs_a_model_without_text_encoder(qwen, tmp_path):
    pytest.importorskip("OpenEXR")
    typer_testing = pytest.importorskip("typer.testing")
    from mforce.cli.app import app

    def run(features, out):
        sizes = replace(TINY, in_channels=128, depth_channels=256, context_in_dim=features)
        transformer = random_model(sizes, std=0.05)
        save_model(transformer, tmp_path / "model", dtype=torch.float32)
        arguments = ["joint", "a ball", "--model", tmp_path / "model", "--text-encoder", qwen[0]]
        arguments += ["--vae", tmp_path / "vae.safetensors", "--size", 32, "--steps", 1, "-o", out]
        return typer_testing.CliRunner().invoke(app, [str(argument) for argument in arguments])

    save_patch_autoencoder(PatchAutoencoder(), tmp_path / "vae.safetensors")
    done = run(3 * HIDDEN, tmp_path / "out")
    assert done.exit_code == 0, done.output
    files = json.loads((tmp_path / "out" / "metadata.json").read_text())["model_files"]
    assert "model.safetensors" in files["text_encoder"]
    refused = run(3 * HIDDEN + 1, tmp_path / "no")
    assert refused.exit_code == 2
    assert "48 features and the model needs 49" in refused.output


def test_other_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="not a folder with Qwen3"):
        load_qwen_text_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="bert"):
        load_qwen_text_encoder(tmp_path)
    tiny_qwen(tmp_path, layers=4)
    with pytest.raises(ValueError, match="4 layers"):
        load_qwen_text_encoder(tmp_path)
