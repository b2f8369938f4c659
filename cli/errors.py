"""What a person reads when something goes wrong: one sentence, and an exit code for scripts."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

import typer

from ..mforce_core.settings import Settings

USER_ERROR, INTERNAL_ERROR, CANCELED = 2, 1, 130

_SETTING = re.compile(f"`({'|'.join([*(field.name for field in fields(Settings)), 'output', 'overwrite'])})`")

#: What takes less memory, in sampling and in training.
LIGHTER = "a smaller --size, --dtype bfloat16 or --device cpu"
LIGHTER_TRAINING = (
    "--set scale.micro_batch_size=1, --set scale.checkpoint_activations=true, --set data.on_device=false or more "
    "--processes"
)


@contextmanager
def report_errors(debug: bool, lighter: str = LIGHTER) -> Iterator[None]:
    """Turn exceptions of a command into a sentence on stderr and an exit code.

    2: the input or the machine is at fault and the sentence says how. 130: canceled with Ctrl-C. 1: a fault
    in this program. With ``debug`` the traceback comes before the sentence; ``lighter`` is what to use where memory
    runs out.
    """
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        _say("Canceled. Nothing half-finished was left behind.")
        raise typer.Exit(CANCELED) from None
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if debug:
            traceback.print_exc()
        _say(f"Error: {_sentence(error)}")
        raise typer.Exit(USER_ERROR) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        if _is_out_of_memory(error):
            _say(f"Error: memory ran out. Use {lighter}.")
            raise typer.Exit(USER_ERROR) from None
        _say(f"Internal error, please report it: {type(error).__name__}: {error}")
        if not debug:
            _say("Run the same command with --debug to see where it happened.")
        raise typer.Exit(INTERNAL_ERROR) from None


def as_options(text: str) -> str:
    """A sentence of the library, which names settings in backquotes, with the options that they are here."""
    return _SETTING.sub(lambda found: "--" + found[1].replace("_", "-"), text)


def _sentence(error: BaseException) -> str:
    text = as_options(" ".join(str(error).split())) or type(error).__name__
    return text if text.endswith((".", "!", "?")) else text + "."


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower())


def _say(text: str) -> None:
    print(text, file=sys.stderr)
