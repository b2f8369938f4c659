"""The version, importable from everywhere in the package. pyproject.toml says it too, for the Comfy Registry."""

__version__ = "0.2.0"
