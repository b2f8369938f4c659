"""Some thousand damaged files into every reader of outside data; benchmarks/fuzz.py runs as many as one likes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("OpenEXR")

from mforce.benchmarks.fuzz import SECONDS, fuzz, run_case
from mforce.benchmarks.fuzz_subjects import Subject, subjects
from mforce.mforce_core.exr.header import check_header
from mforce.mforce_core.model.config import Architecture, ConfigError, read_config
from mforce.mforce_core.scene3d.point_cloud_files import read_ply
from mforce.mforce_core.settings import Settings
from mforce.training.data.sample import decode_files


def test_every_whole_file_is_read(tmp_path):
    """What is damaged below is whole before; otherwise nothing would be tested."""
    (tmp_path / "seeds").mkdir()
    for name, subject in subjects(tmp_path / "seeds").items():
        for number, content in enumerate(subject.seeds):
            folder = tmp_path / f"{name}-{number}"
            folder.mkdir()
            path = folder / f"input{subject.suffix}"
            path.write_bytes(content)
            subject.read(path)


def test_damaged_files_have_one_sentence(tmp_path):
    (tmp_path / "seeds").mkdir()
    names = list(subjects(tmp_path / "seeds"))
    assert fuzz(names, 2700, seed=7) == []


def read_badly(path: Path) -> None:
    content = path.read_bytes()
    if b"tokens" in content:
        raise KeyError("tokens")
    raise ValueError("two\nlines")


@pytest.mark.parametrize(("seed", "problem"), [(b"tokens", "KeyError: "), (b"xxxxxxxx", "a message of 9 characters")])
def test_a_fault_is_found(seed, problem, tmp_path):
    subject = Subject(".x", [seed], read_badly, damage=lambda content, others, rng: content)
    (tmp_path / "case").mkdir()
    assert run_case("bad", subject, 0, 0, tmp_path / "case").startswith(problem)


_ENDS = """
import os, sys, time
from mforce.benchmarks import fuzz
from mforce.benchmarks.fuzz_subjects import Subject

def read(path):
    if path.read_bytes() == b"end":
        os._exit(3)
    time.sleep(60)

def only(folder):
    return {"bad": Subject(".x", [SEED], read, damage=lambda content, others, rng: content)}

fuzz.SECONDS, fuzz.subjects = -8.0, only
if __name__ == "__main__":
    print(fuzz.fuzz(["bad"], 1, 0)[0].what)
"""


@pytest.mark.parametrize(("seed", "what"), [("b'end'", "ended the process (exit code 3)"), ("b'hang'", "hung for")])
def test_a_reader_that_ends_or_hangs_the_process_is_found(seed, what, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(_ENDS.replace("SEED", seed))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300)
    assert what in done.stdout, done.stderr
    assert SECONDS == 20


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=12), part, max_size=4),
    max_leaves=12,
)
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def one_sentence(error: Exception) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 1000


@MANY
@given(st.dictionaries(st.sampled_from([*Architecture().to_dict(), "other"]), JSON, max_size=4))
def test_any_architecture_is_taken_or_refused_in_a_sentence(values):
    try:
        Architecture.from_dict({**Architecture().to_dict(), **values})
    except ConfigError as error:
        one_sentence(error)


@MANY
@given(value=JSON)
def test_any_config_is_read_or_refused_in_a_sentence(value, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(value))
    try:
        read_config(path)
    except ConfigError as error:
        one_sentence(error)


@MANY
@given(st.dictionaries(st.sampled_from([*Settings("joint", "").to_dict(), "other"]), JSON, max_size=4))
def test_any_settings_are_taken_or_refused_in_a_sentence(values):
    try:
        Settings.from_dict({**Settings("joint", "").to_dict(), **values})
    except ValueError as error:
        one_sentence(error)


@MANY
@given(content=st.binary(max_size=300))
def test_any_bytes_after_the_mark_of_a_format_are_refused_in_a_sentence(content, tmp_path):
    path = tmp_path / "d.exr"
    path.write_bytes(b"\x76\x2f\x31\x01" + content)
    with pytest.raises(ValueError, match=r"d\.exr") as caught:
        check_header(path)
    one_sentence(caught.value)
    with pytest.raises(ValueError, match=r"PLY|structured|field|dtype"):
        read_ply(b"ply\nformat ascii 1.0\n" + content)


@MANY
@given(st.dictionaries(st.sampled_from(["txt", "json", "depth.npy", "mask.png", "png", "jpg"]), st.binary(max_size=80)))
def test_any_files_of_a_sample_are_read_or_refused_in_a_sentence(files):
    try:
        decode_files("k", files)
    except ValueError as error:
        one_sentence(error)
