"""What people type into the real frontend's search, and what it offers them."""

import os
import shutil

import pytest

from .canvas_page import Page

#: Words, and what has to be among the first ten results.
WANTED = {
    "flux depth": {"Text to Image + Depth", "Image to Depth", "Depth to Image", "MF Sampler"},
    "flux 2": {"Depth to Image", "MF Sampler"},
    "depth map": {"Image to Depth", "MF Depth Map to Image"},
    "depth estimation": {"Image to Depth"},
    "sparse depth": {"Complete Depth"},
    "object removal": {"Inpaint Image + Depth"},
    "rgbd": {"Text to Image + Depth"},
    "turntable": {"MF Render View"},
    "stereo": {"MF Stereo Pair"},
    "3d photo": {"MF Render View", "To Point Cloud"},
    "metric depth": {"Encode Depth", "MF Depth Completion"},
    "normal map": {"MF Depth Passes"},
    "bokeh": {"MF Depth of Field"},
    "gaussian splat": {"MF To Gaussian Splats"},
    "anaglyph": {"MF Stereo Pair"},
    "camera path": {"MF Save Camera"},
    "save depth": {"MF Save Depth"},
    "load depth": {"MF Load Depth"},
}
#: Words that are the name of a blueprint, which has to come first.
FIRST = {"image to depth": "Image to Depth", "text to image depth": "Text to Image + Depth"}


@pytest.fixture(scope="module")
def page(frontend_server):
    pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if not (os.environ.get("CHROMIUM") or shutil.which("chromium")):
        pytest.skip("no Chromium on the PATH: install one, or set CHROMIUM")
    with Page(frontend_server.url) as page:
        page.open_search(800, 450)
        yield page


@pytest.mark.parametrize("words", WANTED)
def test_words_find_the_nodes_and_blueprints(page, words):
    assert WANTED[words] <= set(page.offered(words)[:10])


@pytest.mark.parametrize("words", FIRST)
def test_the_name_of_a_blueprint_finds_it_first(page, words):
    assert page.offered(words)[0] == FIRST[words]
