"""README and documentation against the code: examples run, commands and their options exist, links lead somewhere."""

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

import mforce
from mforce.cli.app import app
from mforce.cli.commands.default_command import DefaultCommandGroup
from mforce.mforce_core.encoders.words import load_text_encoder

ROOT = Path(__file__).parent.parent
ROOT_PAGES = [
    ROOT / name
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "models/nano/README.md", "models/nano-fast/README.md")
]
PAGES = [*ROOT_PAGES, *sorted((ROOT / "docs").rglob("*.md"))]
DRAWINGS = runpy.run_path(str(ROOT / "docs" / "drawings.py"))["DRAWINGS"]
EXAMPLES = [ROOT / "README.md", ROOT / "docs" / "tutorials" / "researcher.md"]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every `mforce ...` in the page's shell examples."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;|\|", line.split(" #")[0]):
                words = shlex.split(part)
                if words and Path(words[0]).name == "mforce":
                    yield words[1:]


def test_one_version() -> None:
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared
    assert declared[1] == mforce.__version__


def test_the_readme_takes_two_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere_in_the_repository(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("file", DRAWINGS)
def test_drawings_are_those_of_the_code(file: str) -> None:
    """To a tenth of a pixel, to which their numbers are rounded."""
    drawn, kept = DRAWINGS[file](), (ROOT / "docs" / "images" / file).read_text(encoding="utf-8")
    number = re.compile(r"-?\d+(?:\.\d+)?")
    assert number.sub("0", drawn) == number.sub("0", kept), "run: python docs/drawings.py"
    found, wanted = ([float(text) for text in number.findall(svg)] for svg in (drawn, kept))
    assert found == pytest.approx(wanted, abs=0.11), "run: python docs/drawings.py"


@pytest.mark.parametrize("page", EXAMPLES, ids=name)
def test_python_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models", target_is_directory=True)
    found = blocks(page, "python")
    assert found
    for code in found:
        exec(compile(code, name(page), "exec"), {})


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands(page))], ids=name)
def test_commands_and_options_of_the_examples_exist(page: Path) -> None:
    for words in commands(page):
        command = typer.main.get_command(app)
        rest = list(words)
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]
        if isinstance(command, DefaultCommandGroup) and rest:  # `mforce eval --scenes 4`
            command = next(iter(command.commands.values()))
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.split("=")[0] for word in rest if word.startswith("--")} - {"--help"}
        assert used <= options, f"mforce {shlex.join(words)}: {used - options}"
        assert not getattr(command, "commands", {}) or not rest or rest[0].startswith("--"), shlex.join(words)


def test_nano_knows_the_words_of_the_prompts_in_the_tutorials() -> None:
    words = load_text_encoder(ROOT / "models" / "nano")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))):
        prompts = re.findall(r"""["`](an? (?:[a-z]+ )+[a-z]+)["`]""", page.read_text(encoding="utf-8"))
        assert prompts, page
        assert {prompt: words.unknown_words(prompt) for prompt in prompts if words.unknown_words(prompt)} == {}
