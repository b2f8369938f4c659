"""What ComfyUI reads in the published pyproject.toml, with its own parser, which is that of the registry's tool."""

import json
import re
import runpy

import pytest
from PIL import Image

from .host import PACK, find_installation

SCRIPT = """
import json, sys
from comfy_config.config_parser import extract_node_configuration
print(extract_node_configuration(sys.argv[1]).model_dump_json())
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    fields = runpy.run_path(str(PACK / ".github" / "registry_fields.py"))["with_registry_fields"]
    text = (PACK / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(fields(text, "someone/pack", "v9.9.9"), encoding="utf-8")
    (folder / "read.py").write_text(SCRIPT)
    return json.loads(find_installation().run(folder / "read.py", folder))


def test_versions_are_as_the_registry_wants_them(published):
    project = published["project"]
    assert re.fullmatch(r">=\d+\.\d+\.\d+", project["supported_comfyui_version"])
    assert re.fullmatch(r">=\d+\.\d+\.\d+", project["supported_comfyui_frontend_version"])
    assert project["supported_os"] == ["OS Independent"]


def test_names_description_and_pictures(published):
    project, comfy = published["project"], published["tool_comfy"]
    assert 50 < len(project["description"]) < 400
    assert comfy["publisher_id"]
    assert comfy["display_name"]
    assert project["urls"]["repository"] == "https://github.com/someone/pack"
    name = comfy["icon"].removeprefix("https://raw.githubusercontent.com/someone/pack/v9.9.9/")
    with Image.open(PACK / name) as icon:
        assert icon.width <= 800
        assert icon.height <= 400


def test_the_banner_is_there():
    text = (PACK / ".github" / "registry_fields.py").read_text(encoding="utf-8")
    (name,) = re.findall(r'"Banner": f"\{images\}/(.+?)"', text)
    with Image.open(PACK / "docs" / "images" / name) as banner:
        assert banner.width / banner.height == pytest.approx(21 / 9, rel=0.01)


def test_the_frontend_is_no_dependency_of_the_command_line():
    assert "frontend" not in (PACK / "pyproject.toml").read_text(encoding="utf-8")
