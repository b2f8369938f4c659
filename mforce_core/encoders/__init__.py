"""From pictures and words to what the transformer takes, and back."""
