"""One running ComfyUI for all tests that talk to a server."""

import struct

import pytest
from safetensors.torch import save_file
from torch import zeros

from .host import PACK, Server, find_installation

# Neither an identifier nor the repository's name: the pack must work under whatever folder name it gets.
FOLDER = "Modality.Forcing nodes-main"


# Another pack, as many are: folders with the names of ours and of ComfyUI's own modules, itself on sys.path.
NEIGHBOR = {
    "__init__.py": """
import os, sys
sys.path.insert(0, os.path.dirname(__file__))
import kernels
from .nodes import Neighbor
assert kernels.OWNER == "neighbor"
NODE_CLASS_MAPPINGS = {"Neighbor": Neighbor}
""",
    "kernels/__init__.py": 'OWNER = "neighbor"',
    "mforce_core/__init__.py": 'raise ImportError("not the one that was meant")',
    "nodes/__init__.py": """
class Neighbor:
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}
    RETURN_TYPES, FUNCTION, CATEGORY = (), "run", "test"
    def run(self):
        return ()
""",
}


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    if not (PACK / "models" / "nano" / "model.safetensors").is_file():
        pytest.skip("the built-in model's weights are not in models/nano")
    base = tmp_path_factory.mktemp("comfyui")
    for name, text in NEIGHBOR.items():
        file = base / "custom_nodes" / "a-neighbor" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    running = Server(find_installation(), base, FOLDER)
    models = running.base / "models" / "diffusion_models"
    models.mkdir()
    (models / "truncated.safetensors").write_bytes(struct.pack("<Q", 1000) + b'{"a": ')
    save_file({"conv.weight": zeros(2, 2)}, models / "foreign.safetensors")
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def object_info(server):
    return server.get("/object_info")


@pytest.fixture(scope="session")
def frontend_server(tmp_path_factory):
    """A ComfyUI for browsers: of packs in folders with a space in their name, it serves no JavaScript."""
    running = Server(find_installation(), tmp_path_factory.mktemp("frontend"), "modality-forcing")
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()
