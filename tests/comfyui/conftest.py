"""One running ComfyUI for all tests that talk to a server."""

import struct

import pytest
from safetensors.torch import save_file
from torch import zeros

from .host import PACK, Server, find_installation

# Neither an identifier nor the repository's name: the pack must work under whatever folder name it gets.
FOLDER = "Modality.Forcing nodes-main"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    if not (PACK / "models" / "nano" / "model.safetensors").is_file():
        pytest.skip("the built-in model's weights are not in models/nano")
    running = Server(find_installation(), tmp_path_factory.mktemp("comfyui"), FOLDER)
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
