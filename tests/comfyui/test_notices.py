"""What goes wrong is said in a toast of the real frontend, by the node's name."""

import pytest

from .browser import frontend

BUILD = """(kind) => {
  const { app, LiteGraph } = window
  app.graph.clear()
  const add = (type, x) => {
    const node = LiteGraph.createNode(type); app.graph.add(node); node.pos = [x, 100]; return node }
  const link = (from, slot, to, name) => from.connect(slot, to, to.findInputSlot(name))
  const scene = add('MFExampleScene', 0), out = add('PreviewImage', 1200)
  if (kind === 'VAEDecode') {
    const model = add('MFLoadModel', 0), depth = add('MFEncodeDepth', 400), decode = add('VAEDecode', 800)
    link(scene, 1, depth, 'depth'); link(depth, 0, decode, 'samples'); link(model, 2, decode, 'vae')
    link(decode, 0, out, 'images')
  } else {
    const geometry = add('MFDepthToGeometry', 400), fog = add('MFFog', 800)
    link(scene, 1, geometry, 'depth'); link(scene, 0, geometry, 'image'); link(geometry, 0, fog, 'geometry')
    fog.widgets.find((w) => w.name === 'color').value = 'red'
    link(fog, 0, out, 'images')
  }
}"""


@pytest.fixture(scope="module")
def page(frontend_server):
    with frontend(frontend_server) as page:
        yield page


@pytest.mark.parametrize(
    ("kind", "title", "sentence"),
    [
        ("VAEDecode", "VAE Decode", "This latent is depth and not a picture: connect it to Depth Detokenize."),
        ("MFFog", "MF Fog", "color is 'red'; write it as #rrggbb."),
    ],
)
def test_an_error_is_a_toast_with_the_nodes_name(page, kind, title, sentence):
    page.evaluate(BUILD, kind)
    page.keyboard.press("Control+Enter")
    toast = page.locator(".p-toast-message").filter(has_text=sentence)
    toast.wait_for(timeout=120_000)
    assert title in toast.inner_text()
