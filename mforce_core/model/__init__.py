"""The transformer: its sizes, its tokens and its rotation."""
