"""What options of several commands are read into, and what is said of other texts."""

import json
import os

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

from mforce.cli.app import app
from mforce.cli.commands.values import whole_numbers
from mforce.cli.json_file import write_json


def test_whole_numbers_are_read():
    assert whole_numbers("--factors", "2, 4,16", 2) == [2, 4, 16]


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        (("study", "full-size", "--factors"), ("2,1", "", "2,,4", "2.5", "-2", "two")),
        (("eval", "distilled", "somewhere", "--steps"), ("0", "1,", "four")),
    ],
)
def test_other_texts_are_refused_by_the_options_name(command, texts):
    for text in texts:
        done = CliRunner().invoke(app, [*command[:-1], f"{command[-1]}={text}"])
        assert done.exit_code == 2
        said = " ".join(done.output.split())
        assert f"{command[-1]} are whole numbers from {1 if 'eval' in command else 2} on" in said


@pytest.mark.parametrize(
    "command",
    [
        ("eval", "scenes"),
        ("eval", "distilled", "student"),
        ("study", "full-size"),
        ("study", "sampling"),
        ("study", "video", "--only", "cuts"),
        ("study", "views"),
    ],
)
def test_a_file_without_a_folder_is_refused_before_a_model_is_looked_for(command, tmp_path):
    model = "--teacher" if "distilled" in command else "--model"
    done = CliRunner().invoke(app, [*command, model, "nowhere", "--json", str(tmp_path / "none" / "numbers.json")])
    assert done.exit_code == 2
    assert "does not exist: make it first" in " ".join(done.output.split())


def test_numbers_go_through_a_link(tmp_path):
    (tmp_path / "link.json").symlink_to(tmp_path / "numbers.json")
    for number in (1, 2):
        write_json(tmp_path / "link.json", {"number": number})
        assert json.loads((tmp_path / "numbers.json").read_text()) == {"number": number}
    assert (tmp_path / "link.json").is_symlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes that have names")
def test_numbers_go_through_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    write_json(tmp_path / "pipe", {"number": 1})
    assert json.loads(os.read(end, 100)) == {"number": 1}
    os.close(end)
