"""Pictures: their files and their colors."""
