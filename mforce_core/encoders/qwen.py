"""Qwen3 text features of the full-size models, through transformers.

Only a local folder is read: nothing is downloaded, and no code or pickle in the folder is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..release import TEXT_TOKENS

#: Decoder layers after which hidden states are taken.
LAYERS = (9, 18, 27)

_PADDING = "<|endoftext|>"
_TEMPLATE = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


class QwenTextEncoder:
    """Maps prompts to (B, 512, 3 * hidden size) features, those of `LAYERS`.

    Args:
        tokenizer: of Qwen3, from transformers.
        model: Qwen3 without its language-model head; it needs no more layers than the last of them.
    """

    length = TEXT_TOKENS

    def __init__(self, tokenizer: Any, model: Any) -> None:
        self.tokenizer = tokenizer
        self.model = model

    @property
    def dim(self) -> int:
        """Features of a token."""
        return len(LAYERS) * self.model.config.hidden_size

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Features (B, length, dim) float32 on the CPU. Prompts are cut where they do not fit.

        ``encode([""])`` is the null text of classifier-free guidance.
        """
        tokens = self.tokenizer(
            [_TEMPLATE.format(prompt) for prompt in prompts],
            padding="max_length",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        ).to(self.model.device)
        found: dict[int, Tensor] = {}

        def keep(layer: int):
            def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
                found[layer] = output[0] if isinstance(output, tuple) else output

            return hook

        # The model's own list of hidden states normalizes the last one; a layer's output is what it says.
        handles = [self.model.layers[n - 1].register_forward_hook(keep(n)) for n in LAYERS]
        try:
            self.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return torch.cat([found[n] for n in LAYERS], dim=-1).float().cpu()


def load_qwen_text_encoder(path: str | Path, *, device: torch.device | str = "cpu") -> QwenTextEncoder:
    """Load Qwen3 from a folder in the Hugging Face layout.

    Args:
        path: folder with ``config.json``, the tokenizer and safetensors shards, or a pipeline folder with
            ``text_encoder/`` and ``tokenizer/`` in it.

    Raises:
        ValueError: not such a folder, or not Qwen3.
        ModuleNotFoundError: transformers is not installed.
    """
    try:
        from transformers import AutoConfig, AutoTokenizer, Qwen3Model
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Full-size models need transformers: pip install 'comfyui-modality-forcing[standalone]'."
        ) from error

    path = Path(path)
    weights = path / "text_encoder" if (path / "text_encoder").is_dir() else path
    words = path / "tokenizer" if (path / "tokenizer").is_dir() else path
    if not (weights / "config.json").is_file():
        raise ValueError(f"{path} is not a folder with Qwen3: it needs config.json, a tokenizer and weights.")
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(weights, **local)
        if config.model_type != "qwen3":
            raise ValueError(f"{path} holds a {config.model_type} model: the text encoder is Qwen3.")
        if config.num_hidden_layers < LAYERS[-1]:
            raise ValueError(
                f"{path} has {config.num_hidden_layers} layers, not {LAYERS[-1]}: use Qwen3-4B or Qwen3-8B."
            )
        # The layers after the last one that is read would only take memory.
        config.num_hidden_layers = LAYERS[-1]
        config.layer_types = config.layer_types[: LAYERS[-1]]
        tokenizer = AutoTokenizer.from_pretrained(words, padding_side="right", **local)
        with _quiet():
            model = Qwen3Model.from_pretrained(weights, config=config, dtype="auto", use_safetensors=True, **local)
    except OSError as error:
        raise ValueError(f"{path} cannot be read as Qwen3: {str(error).splitlines()[0]}") from error
    tokenizer.pad_token = _PADDING
    tokenizer.truncation_side = "right"
    return QwenTextEncoder(tokenizer, model.requires_grad_(False).eval().to(device))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from reporting the layers that are left out on purpose."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
