"""The smallest Qwen3 that several tests take for the text encoder."""

HIDDEN = 16


def qwen_config(vocabulary: int, layers: int) -> object:
    """Of transformers, which is needed here alone."""
    import transformers

    return transformers.Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=1024,
    )
