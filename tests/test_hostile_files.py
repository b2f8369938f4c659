"""Files that claim terabytes, or are as long on paper, into every reader, in a process that may use 3 GB."""

import json
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("OpenEXR")

CHILD = """
    import json, re, resource, shutil, struct, sys, time
    from pathlib import Path

    from mforce.benchmarks.fuzz_subjects import Subject, subjects
    from mforce.cli.generation import read_metadata

    TERABYTE = 1 << 40
    SAFETENSORS = {
        "a header of terabytes": struct.pack("<Q", 1 << 42) + b'{"a": ',
        "a header of all there is": struct.pack("<Q", (1 << 64) - 1) + b"{}",
    }
    CLAIMS = {
        "shapes of terabytes": {"a": {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 1 << 42]}},
        "a shape beyond 64 bits": {"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 8]}},
        "nested": None,
    }
    for name, entries in CLAIMS.items():
        text = b"[" * 200_000 if entries is None else json.dumps(entries).encode()
        SAFETENSORS[name] = struct.pack("<Q", len(text)) + text + bytes(16)

    folder = Path(sys.argv[1])
    (folder / "seeds").mkdir()
    every = subjects(folder / "seeds")
    # Their bytes come from elsewhere, in bounds: a file in memory, and a tar.
    del every["ply"], every["captions"]
    every["metadata"] = Subject(".json", [b'{"format": 1, "settings": {}}'], read_metadata)
    # PyTorch with CUDA maps gigabytes of libraries, so the limit counts from here.
    mapped = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (2 << 30), mapped + (2 << 30)))

    def attempt(subject, content, length=None):
        path = folder / "case" / f"input{subject.suffix}"
        path.parent.mkdir()
        with path.open("wb") as file:
            file.write(content)
            if length is not None:
                file.truncate(length)  # takes no room on the disk
        start = time.monotonic()
        try:
            subject.read(path)
            problem = None
        except subject.errors as error:
            problem = None if len(str(error)) < 1000 and chr(10) not in str(error) else f"message {str(error)[:200]!r}"
        except BaseException as error:
            problem = f"{type(error).__name__}: {str(error)[:200]}"
        shutil.rmtree(path.parent)
        return problem, time.monotonic() - start

    for name, subject in every.items():
        print(json.dumps([name, "a terabyte long", *attempt(subject, subject.seeds[0], TERABYTE)]), flush=True)
        if subject.suffix == ".safetensors":
            for kind, content in SAFETENSORS.items():
                print(json.dumps([name, kind, *attempt(subject, content)]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_files_of_terabytes_are_read_or_refused_within_3_gb(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (rows[-1], done.stderr[-2000:])
    assert [row for row in rows if row[2] is not None] == []
    assert len(rows) > 30
