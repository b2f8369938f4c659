"""The command line, run in the process of a test."""

from typer.testing import CliRunner

from mforce.cli.app import app


def run(*words: object, code: int = 0) -> str:
    """All that a command prints; it must end with ``code``."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def run_unwrapped(*words: object, code: int = 0) -> str:
    """The same with single spaces in place of the breaks between lines, which depend on the terminal's width."""
    return " ".join(run(*words, code=code).split())
