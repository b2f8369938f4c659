"""Pictures that anyone may have made, and what is said of those that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mforce.mforce_core.device import check_device
from mforce.mforce_core.picture.reading import read_picture
from mforce.mforce_core.settings import Settings

CASES = Path(__file__).parent / "cases"


def test_float_pictures_in_either_range(tmp_path):
    values = np.asarray(Image.open(CASES / "14_float_tiff" / "f255.tif"))
    expected = np.round(values).astype(int)
    for white in (255, 1):
        Image.fromarray(values / (255 / white)).save(tmp_path / "f.tif")
        picture = read_picture(tmp_path / "f.tif")
        assert np.abs(np.asarray(picture.image).astype(int)[..., 0] - expected).max() <= 1
        assert f"{white} was taken as white" in picture.notes[0]
    values = values / 255
    values[0, 0] = 1.7  # a highlight
    Image.fromarray(values).save(tmp_path / "f.tif")
    assert np.abs(np.asarray(read_picture(tmp_path / "f.tif").image).astype(int)[1:, :, 0] - expected[1:]).max() <= 1


def test_a_very_large_photo_is_shrunk_while_it_is_decoded(tmp_path):
    Image.linear_gradient("L").resize((12000, 9000)).save(tmp_path / "p.jpg")
    picture = read_picture(tmp_path / "p.jpg")
    assert picture.image.size == (6000, 4500)
    assert "12000x9000" in picture.notes[0]
    assert np.abs(np.asarray(picture.image)[::450, 0, 0] - np.linspace(0, 255, 10, endpoint=False)).max() < 4
    Image.new("1", (12000, 12000)).save(tmp_path / "p.png")
    with pytest.raises(ValueError, match="12000x12000 pixels, too many"):
        read_picture(tmp_path / "p.png")


def test_a_header_that_claims_more_than_the_file_can_hold_is_not_believed(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "p.bmp")
    content = bytearray((tmp_path / "p.bmp").read_bytes())
    content[18:26] = (10000).to_bytes(4, "little") * 2
    (tmp_path / "p.bmp").write_bytes(content)
    with pytest.raises(ValueError, match="10000x10000 pixels, more than the file can hold"):
        read_picture(tmp_path / "p.bmp")


def test_a_folder_is_named_as_one(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        read_picture(tmp_path)


def test_seeds_have_the_range_of_the_nodes():
    assert Settings("joint", "", seed=2**64 - 1).seed == 2**64 - 1
    with pytest.raises(ValueError, match=r"2\^64 - 1"):
        Settings("joint", "", seed=2**64)


@pytest.mark.parametrize("device", ["mps", "cuda:7", "nonsense", "xpu"])
def test_a_device_that_is_not_there_has_a_short_sentence(device):
    try:
        torch.empty(0, device=device)
    except Exception:
        with pytest.raises(ValueError, match=r"use .device. cpu") as caught:
            check_device(device)
        assert len(str(caught.value)) < 200
        assert "\n" not in str(caught.value)
    else:
        pytest.skip("this machine has it")
