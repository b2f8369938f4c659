"""Workflows that 0.2 saved, in the real frontend: what they had no widget for stays as it was."""

import json

import pytest

from .browser import frontend
from .host import PACK

SAMPLER = PACK / "workflows" / "06 Refined Depth.json"
LOAD = """async (saved) => {
  await app.loadGraphData(saved)
  return app.graph.nodes.filter((one) => one.comfyClass === 'MFSampler')
    .map((one) => Object.fromEntries(one.widgets.map((widget) => [widget.name, widget.value])))
}"""
NEW = """() => LiteGraph.createNode('MFSampler').widgets.find((one) => one.name === 'same_noise').value"""

#: How many values a sampler of 0.2 stored, the control after the seed among them.
STORED = 11


@pytest.fixture(scope="module")
def page(frontend_server):
    with frontend(frontend_server) as page:
        yield page


def test_batches_of_earlier_workflows_keep_a_noise_for_each_picture(page):
    saved = json.loads(SAMPLER.read_text(encoding="utf-8"))
    first, second = (node for node in saved["nodes"] if node["type"] == "MFSampler")
    first["widgets_values"] = first["widgets_values"][:STORED]
    second["widgets_values"][-1] = "always"
    earlier, later = page.evaluate(LOAD, saved)
    assert earlier["same_noise"] == "never"
    assert earlier["denoise"] == first["widgets_values"][STORED - 1]
    assert earlier["control_strength"] == 1
    assert later["same_noise"] == "always"
    assert page.evaluate(NEW) == "image to depth"
