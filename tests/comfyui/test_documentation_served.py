"""Help pages, locales and the upload of depth files as a real ComfyUI gives them to the browser."""

import json
import urllib.request
from io import BytesIO
from uuid import uuid4

import numpy as np
import pytest

from .host import PACK, Server, find_installation
from .record_object_info import pack_nodes

# As a clone of the repository is called. ComfyUI serves no web folder of a pack whose folder has a space in its name,
# and the frontend looks for help pages under the name up to a dot.
FOLDER = "comfyui-modality-forcing"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(find_installation(), tmp_path_factory.mktemp("documentation"), FOLDER)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize("page", ["{node}.md", "{node}/zh.md"])
def test_help_pages_are_served_where_the_frontend_asks_for_them(server, page):
    for node in pack_nodes(server.get("/object_info")):
        path = f"docs/{page.format(node=node)}"
        with urllib.request.urlopen(f"{server.url}/extensions/{FOLDER}/{path}", timeout=60) as answer:
            assert "html" not in answer.headers["Content-Type"]  # which the frontend takes for a page of its own
            assert answer.read() == (PACK / "web" / path).read_bytes()


def test_locales_are_offered(server):
    offered = server.get("/i18n")
    for language in ("en", "zh"):
        texts = json.loads((PACK / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
        assert texts.items() <= offered[language]["nodeDefs"].items()


def test_a_depth_file_that_is_no_image_can_be_uploaded(server):
    """What web/js/upload_depth.js relies on: ComfyUI takes any file, and MF Load Depth finds it."""
    assert f"/extensions/{FOLDER}/js/upload_depth.js" in server.get("/extensions")
    content = BytesIO()
    np.save(content, np.linspace(1, 5, 32 * 32, dtype=np.float32).reshape(32, 32))
    name, boundary = "my depth.npy", uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
    body = head.encode() + content.getvalue() + f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(
        server.url + "/upload/image", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        stored = json.load(answer)
    assert stored == {"name": name, "subfolder": "", "type": "input"}
    definition = server.get("/object_info/MFLoadDepth")["MFLoadDepth"]
    assert name in definition["input"]["required"]["file"][1]["options"]
    prompt = {
        "1": {
            "class_type": "MFLoadDepth",
            "inputs": {"file": name, "meaning": "as the file says", "fov_degrees": 65.0, "exr_channel": "auto"},
        },
        "2": {"class_type": "MaskPreview", "inputs": {"mask": ["1", 2]}},
    }
    assert server.wait(server.queue(prompt))["status"]["status_str"] == "success"
