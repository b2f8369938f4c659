"""Workflows from strangers: file names that lead elsewhere, and values of any type in every input."""

import shutil
import sys

import numpy as np
import pytest

from mforce.benchmarks.workflow_fuzz import draw, fuzz, run_case, whole_inputs

from .test_faults import LIMIT, failure, files_of, saving, write_depth_file


@pytest.fixture
def outside(server, tmp_path):
    """A folder beside the server's own, with a depth map that no workflow may read."""
    folder = server.base.parent / f"outside-{tmp_path.name}"
    folder.mkdir()
    np.save(folder / "secret.npy", np.full((16, 16), 3.0, dtype=np.float32))
    yield folder
    shutil.rmtree(folder)


def refused(server, prompt):
    """Whether a prompt is refused before anything runs."""
    status, answer = server.request("/prompt", {"prompt": prompt})
    return status == 400 and answer["node_errors"].keys() == {"load"}


def test_load_depth_reads_nothing_outside_the_input_folder(server, outside):
    (server.base / "input" / "link.npy").symlink_to(outside / "secret.npy")
    (server.base / "input" / "folder").symlink_to(outside, target_is_directory=True)
    way = f"../../{outside.name}/secret.npy"
    names = [way, f"x/../{way}", str(outside / "secret.npy"), f"{way} [output]", f"{way} [temp]", "link.npy"]
    for name in [*names, "folder/secret.npy", "..", ".", "", "\0", "missing.npy", "../input/missing.npy"]:
        assert refused(server, saving(name)), name
    write_depth_file(server, "own.npy", 32)
    assert files_of(server, server.wait(server.queue(saving("../input/own.npy")), LIMIT))


def test_save_depth_writes_nothing_outside_the_output_folder(server, outside):
    write_depth_file(server, "own.npy", 32)
    (server.base / "output").mkdir(exist_ok=True)
    link = server.base / "output" / "leads-out"
    link.symlink_to(outside, target_is_directory=True)
    before = sorted(server.base.parent.glob("*")), sorted(outside.iterdir())
    for prefix in (
        f"../../{outside.name}/x",
        "../x",
        str(outside / "x"),
        "depth/../../x",
        "leads-out/x",
        "../output2/x",
    ):
        message = failure(server.wait(server.queue(saving("own.npy", prefix)), LIMIT))
        assert message == f"MF Save Depth: filename_prefix {prefix!r} leads out of the output folder.", prefix
    for prefix in ("x" * 400, "a/" * 3000 + "x", "a\0b"):
        message = failure(server.wait(server.queue(saving("own.npy", prefix)), LIMIT))
        assert message.startswith("MF Save Depth: ")
        assert len(message) < 300
    link.unlink()
    assert (sorted(server.base.parent.glob("*")), sorted(outside.iterdir())) == before


def test_load_model_opens_nothing_outside_the_models_folder(server, outside):
    for name in (f"../../../{outside.name}/secret.npy", str(outside / "secret.npy"), "..", ""):
        load = {"class_type": "MFLoadModel", "inputs": {"model_name": name, "weight_dtype": "default"}}
        show = {"class_type": "PreviewAny", "inputs": {"source": ["load", 0]}}
        assert refused(server, {"load": load, "show": show}), name


def test_any_value_in_any_input_is_refused_or_a_sentence(server, object_info):
    count = 5 * sum(name.startswith("MF") for name in object_info)
    ends, faults = fuzz(server, count=count, seed=20)
    assert faults == []
    assert sum(ends.values()) == count
    assert min(ends["refused"], ends["error"], ends["ran"]) > 5


def test_every_node_of_the_fuzz_runs_with_whole_inputs(server, object_info):
    nodes = {name: info for name, info in object_info.items() if name.startswith("MF")}
    np.save(server.base / "input" / "measured.npy", np.ones((48, 64), dtype=np.float32))
    ends = {}
    for number, node in enumerate(sorted(nodes)):
        _, prompt = draw(0, number, nodes)
        assert prompt["tried"]["class_type"] == node
        prompt["tried"]["inputs"] = whole_inputs(node, nodes[node])
        ends[node] = run_case(server, prompt)
    assert ends == dict.fromkeys(nodes, ("ran", None))


def test_a_plain_value_at_a_socket_names_the_socket(server):
    prompt = saving("own.npy")
    write_depth_file(server, "own.npy", 32)
    for value in (True, 1.5, "text", {}, {"depth": 1}):
        prompt["save"]["inputs"]["depth"] = value
        entry = server.wait(server.queue(prompt), LIMIT)
        assert failure(entry) == (
            "MF Save Depth: depth is no MOGE_GEOMETRY or DA3_GEOMETRY or IMAGE; connect an output of that type to it."
        )


@pytest.mark.skipif(sys.platform != "linux", reason="other systems promise memory that they do not have")
def test_what_does_not_fit_into_memory_is_a_sentence(server):
    empty = {"class_type": "MFEmptyLatent", "inputs": {"width": 8192, "height": 8192, "batch_size": 4096}}  # 1.5 TB
    show = {"class_type": "PreviewAny", "inputs": {"source": ["empty", 0]}}
    message = failure(server.wait(server.queue({"empty": empty, "show": show}), LIMIT))
    assert message.startswith("MF Empty Latent: there is not enough memory for this;")
