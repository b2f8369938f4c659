"""What a section of a configuration is: typed keys that explain themselves, and paths that may be in the package."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ..mforce_core.weights.named_parts import PACKAGE_PREFIX, in_package


class Section(BaseModel):
    """Part of a configuration file: unknown keys are errors, values do not change.

    The docstring under a key is its meaning on the reference page (:mod:`.keys`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def key(default: Any = ..., *, paper: str | None = None, **bounds: Any) -> Any:
    """A key with its default, what the paper discloses of it, and its bounds."""
    return Field(default, json_schema_extra=None if paper is None else {"paper": paper}, **bounds)


def _inside_package(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(PACKAGE_PREFIX):
        return in_package(value)
    return value


#: A path of the user's, or ``mforce:...`` for a file of the package.
AnyPath = Annotated[Path, BeforeValidator(_inside_package)]
