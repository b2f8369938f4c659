"""Small text files as editors and shells of Windows write them."""

import codecs
import json
from io import BytesIO

import pytest
from PIL import Image

from mforce.cli.prompts_file import read_prompts
from mforce.mforce_core.model.config import read_config
from mforce.mforce_core.text_file import read_text
from mforce.training.data.sample import decode_files

#: What a text begins with, and how it goes on.
KINDS = {
    "UTF-8": (b"", "utf-8"),
    "UTF-8 with a mark": (codecs.BOM_UTF8, "utf-8"),
    "UTF-16, little end first": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "UTF-16, big end first": (codecs.BOM_UTF16_BE, "utf-16-be"),
}


@pytest.fixture(params=KINDS)
def write(request, tmp_path):
    mark, encoding = KINDS[request.param]

    def written(text):
        (tmp_path / "a.txt").write_bytes(mark + text.encode(encoding))
        return tmp_path / "a.txt"

    return written


def test_a_text_begins_without_its_mark(write):
    assert read_text(write("Ein Würfel 红\r\n")) == "Ein Würfel 红\r\n"


def test_the_first_prompt_is_its_words(write):
    assert read_prompts(write("a red cube\r\n\r\na green sphere\r\n")) == ["a red cube", "a green sphere"]


def test_a_configuration_is_read(write):
    assert read_config(write(json.dumps({"variant": "flux_rgbd_9b_v2"}))).variant == "flux_rgbd_9b_v2"


def test_a_caption_is_its_words(write):
    image = BytesIO()
    Image.new("RGB", (16, 16)).save(image, "PNG")
    files = {"png": image.getvalue(), "txt": write("a red cube\r\n").read_bytes()}
    assert decode_files("k", files).captions == ("a red cube",)


def test_other_bytes_are_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes("Würfel".encode("latin-1"))
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8 text: save it in that encoding\."):
        read_prompts(tmp_path / "a.txt")
