"""Around the Corner in ComfyUI's frontend: a camera that is aimed in the viewer with the mouse moves the view."""

import json

import numpy as np
import pytest
from PIL import Image

from .browser import frontend
from .host import PACK

TEMPLATE = PACK / "workflows" / "25 Around the Corner.json"
# Few steps, a look at what MF Render View sees, and the viewer that is aimed in on the screen.
OPEN = """async (saved) => {
  await app.loadGraphData(saved)
  const only = (type) => app.graph.nodes.find((n) => n.comfyClass === type)
  const set = (node, name, value) => { node.widgets.find((w) => w.name === name).value = value }
  set(only('MFExtendView'), 'steps', 1); set(only('MFExtendView'), 'depth_steps', 1)
  const look = LiteGraph.createNode('PreviewImage')
  app.graph.add(look)
  only('MFRenderView').connect(0, look, 0)
  const viewer = app.graph.nodes.find((n) => n.outputs?.some((o) => o.type === 'LOAD3D_CAMERA' && o.links?.length)
    && n.widgets?.some((w) => w.name === 'viewport_state'))
  app.canvas.ds.scale = 1; app.canvas.ds.offset = [250 - viewer.pos[0], 150 - viewer.pos[1]]
  app.graph.setDirtyCanvas(true, true)
  return [viewer.id, look.id]
}"""
READY = """async (id) => {
  const widget = app.graph.getNodeById(id).widgets.find((w) => w.name === 'viewport_state')
  return Boolean((await widget.serializeValue?.())?.camera_info)
}"""
SQUARE = """(id) => {
  const node = app.graph.getNodeById(id)
  const frame = app.canvas.canvas.getBoundingClientRect()
  const [x, y] = app.canvas.ds.convertOffsetToCanvas([node.pos[0] + node.size[0] / 2, node.pos[1] + node.size[1] / 2])
  const holds = (r) => r.left < frame.left + x && frame.left + x < r.right && r.top < frame.top + y
    && frame.top + y < r.bottom
  const drawn = [...document.querySelectorAll('canvas')].filter((c) => c !== app.canvas.canvas && !c.id)
  const rect = drawn.map((c) => c.getBoundingClientRect()).find(holds)
  return rect && [rect.left + rect.width / 2, rect.top + rect.height / 2]
}"""
RENDER_VIEW = "const n = app.graph.nodes.find((n) => n.comfyClass === 'MFRenderView')"
DISCONNECT = f"() => {{ {RENDER_VIEW}; n.disconnectInput(n.findInputSlot('camera_info')) }}"
MOVE = f"(by) => {{ {RENDER_VIEW}; n.widgets.find((w) => w.name === 'move_right').value = by }}"


class Opened:
    """The template in a page."""

    def __init__(self, page, server):
        self.page, self.server = page, server
        self.viewer, self.look = page.evaluate(OPEN, json.loads(TEMPLATE.read_text(encoding="utf-8")))
        page.wait_for_function(READY, arg=self.viewer, timeout=60_000)

    def run(self):
        """Press Run: the camera that the viewer sends, the one that it gives on, and what MF Render View sees."""
        with self.page.expect_response(lambda answer: answer.url.endswith("/prompt")) as sent:
            self.page.evaluate("() => { app.queuePrompt(0, 1) }")
        entry = self.server.wait(sent.value.json()["prompt_id"])
        assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
        prompt = sent.value.request.post_data_json["prompt"]
        (file,) = entry["outputs"][str(self.look)]["images"]
        with Image.open(self.server.base / "temp" / file["subfolder"] / file["filename"]) as picture:
            seen = np.asarray(picture.convert("RGB"), dtype=np.float64)
        shown = prompt[str(self.viewer)]["inputs"]["viewport_state"]["camera_info"]
        return shown, entry["outputs"][str(self.viewer)]["result"][1], seen

    def turn(self):
        """Drag in the viewer until its camera has moved: while it loads a cloud it takes no hand."""
        before = self.place()
        for _ in range(10):
            self.page.wait_for_timeout(2000)
            x, y = self.page.evaluate(SQUARE, self.viewer)
            self.page.mouse.move(x, y)
            self.page.mouse.down()
            self.page.mouse.move(x - 30, y + 5, steps=5)
            self.page.mouse.up()
            self.page.wait_for_timeout(2000)
            if self.place() != pytest.approx(before, abs=0.02):
                break

    def place(self):
        """Where the viewer's camera stands."""
        state = self.page.evaluate("(id) => app.graph.getNodeById(id).properties['Camera Config'].state", self.viewer)
        return xyz(state)


def xyz(camera):
    return [camera["position"][axis] for axis in "xyz"]


@pytest.mark.parametrize("vue", [False, True], ids=["canvas", "vue"])
def test_a_camera_aimed_in_the_viewer_moves_the_view(vue, frontend_server):
    with frontend(frontend_server, **{"Comfy.VueNodes.Enabled": vue}) as page:
        opened = Opened(page, frontend_server)
        saved = opened.place()
        with page.expect_response(lambda answer: "preview_pointcloud_" in answer.url, timeout=600_000):
            first, given, start = opened.run()
        assert xyz(first) == pytest.approx(saved)
        assert given == first

        opened.turn()
        second, given, aimed = opened.run()
        assert xyz(second) != pytest.approx(xyz(first), abs=0.02)
        assert given == second
        assert np.abs(aimed - start).mean() > 1

        # Without the viewer's camera the widgets act, and as saved they see what the viewer shows at first.
        page.evaluate(DISCONNECT)
        _, _, moved = opened.run()
        assert np.abs(moved - start).mean() < np.abs(moved - aimed).mean() / 2
        page.evaluate(MOVE, 0.3)
        _, _, farther = opened.run()
        assert np.abs(farther - moved).mean() > 1
