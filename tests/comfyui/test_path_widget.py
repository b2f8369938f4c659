"""The square of MF Path in ComfyUI's frontend: drag, keyboard, undo, reload, run; in both renderers."""

import json

import pytest

from .browser import frontend, open_graph
from .host import PACK
from .workflow_prompt import node_inputs

# The sides of the board in the drawing's own unit, as in web/js/path_square.js.
LEFT, TOP, SIDE = 22, 20, 200

BUILD = """() => {
  app.graph.clear()
  const add = (type, x, y) => { const n = LiteGraph.createNode(type); n.pos = [x, y]; app.graph.add(n); return n }
  const path = add('MFPath', 20, 60), sampler = add('MFSampler', 400, 60)
  const model = add('MFLoadModel', 760, 60), latent = add('MFEmptyLatent', 760, 260)
  const positive = add('CLIPTextEncode', 760, 460), negative = add('CLIPTextEncode', 760, 700)
  const out = add('VAEDecode', 1200, 60), save = add('SaveImage', 1200, 160)
  const link = (from, slot, to, name) => from.connect(slot, to, to.findInputSlot(name))
  link(path, 0, sampler, 'path'); link(model, 0, sampler, 'model'); link(latent, 0, sampler, 'latent')
  link(model, 1, positive, 'clip'); link(model, 1, negative, 'clip')
  link(positive, 0, sampler, 'positive'); link(negative, 0, sampler, 'negative')
  link(sampler, 0, out, 'samples'); link(model, 2, out, 'vae'); link(out, 0, save, 'images')
  path.widgets.find((w) => w.name === 'steps').value = 8
  app.canvas.ds.scale = 1; app.canvas.ds.offset = [90, 30]
  app.graph.setDirtyCanvas(true, true)
  app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()
}"""
VALUES = """() => Object.fromEntries(app.graph.nodes.find((n) => n.comfyClass === 'MFPath').widgets
  .filter((w) => w.serialize !== false).map((w) => [w.name, w.value]))"""
DISABLED = """() => app.graph.nodes.find((n) => n.comfyClass === 'MFSampler').widgets
  .filter((w) => w.disabled).map((w) => w.name)"""


def values(page):
    return page.evaluate(VALUES)


def board(page, rgb, depth):
    """Where these noise levels are on the screen, in the square that can be changed."""
    box = page.locator(".mf-path svg").first.bounding_box()
    scale = min(box["width"] / (LEFT + SIDE + 8), box["height"] / (TOP + SIDE + 8))
    left = box["x"] + (box["width"] - scale * (LEFT + SIDE + 8)) / 2
    top = box["y"] + (box["height"] - scale * (TOP + SIDE + 8)) / 2
    return left + scale * (LEFT + SIDE * (1 - rgb)), top + scale * (TOP + SIDE * (1 - depth))


def settle(page):
    """Wait until the square stays where it is: it follows the graph's node some frames later."""
    frames = """() => new Promise((done) => {
      let left = 5
      const next = () => (left-- ? requestAnimationFrame(next) : done())
      next() })"""
    before, now = None, page.locator(".mf-path svg").first.bounding_box()
    while before != now:
        page.wait_for_timeout(300)
        page.evaluate(frames)
        before, now = now, page.locator(".mf-path svg").first.bounding_box()


def until(page, value, wanted):
    """Assert that ``value()`` becomes what is wanted: the browser handles input some frames later."""
    for _ in range(20):
        if value() == wanted:
            break
        page.wait_for_timeout(250)
    assert value() == wanted


def drag(page, begin, end):
    at = "([x, y]) => document.elementFromPoint(x, y)?.classList.contains('handle')"
    until(page, lambda: page.evaluate(at, list(begin)), True)
    page.mouse.move(*begin)
    page.mouse.down()
    page.mouse.move(*[(a + b) / 2 for a, b in zip(begin, end, strict=True)])
    page.mouse.move(*end)
    page.mouse.up()


def points(page):
    return [[float(level) for level in pair.split(",")] for pair in values(page)["points"].split()]


def wait_for_dots(page, count):
    page.wait_for_function(
        "(count) => document.querySelector('.mf-path').querySelectorAll('.dot').length === count", arg=count
    )


@pytest.fixture(params=[False, True], ids=["canvas", "vue"])
def page(request, frontend_server):
    with frontend(frontend_server, **{"Comfy.VueNodes.Enabled": request.param}) as page:
        page.evaluate(BUILD)
        page.wait_for_selector(".mf-path .handle")
        wait_for_dots(page, 9)
        settle(page)
        yield page


def test_a_path_is_dragged_undone_kept_and_run(page, frontend_server):
    assert values(page)["tilt"] == 5
    # The handle of a tilt is where its curve crosses the other diagonal.
    level = 1 / (1 + 2 ** (-5 / 2))
    drag(page, board(page, 1 - level, level), board(page, 0.7, 0.3))
    until(page, lambda: values(page)["tilt"], pytest.approx(-2.4, abs=0.15))
    assert values(page)["shape"] == "tilt"

    page.mouse.dblclick(*board(page, 0.5, 0.7))
    until(page, lambda: handles(page).count(), 6)
    assert values(page)["shape"] == "points"
    before = points(page)
    assert len(before) == 6
    number = next(i for i, (rgb, depth) in enumerate(before) if rgb + depth < 1.5 and i)
    rgb, depth = before[number]
    low, high = before[number + 1], before[number - 1]
    wanted = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2]
    drag(page, board(page, rgb, depth), board(page, *wanted))
    until(page, lambda: points(page)[number], pytest.approx(wanted, abs=0.02))
    after = points(page)
    assert [pair for i, pair in enumerate(after) if i != number] == [p for i, p in enumerate(before) if i != number]

    page.mouse.click(1000, 950)  # the empty canvas, which takes the keys then
    page.keyboard.press("Control+z")
    until(page, lambda: points(page), before)
    page.keyboard.press("Control+Shift+z")
    until(page, lambda: points(page), after)

    saved = page.evaluate("() => app.graph.serialize()")
    open_graph(page, frontend_server)
    page.evaluate("async (saved) => { await app.loadGraphData(saved) }", saved)
    page.wait_for_selector(".mf-path .handle")
    until(page, lambda: points(page), after)
    assert handles(page).count() == 6
    page.wait_for_function("document.querySelectorAll('.mf-path').length === 2")  # MF Sampler's, too

    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    entry = frontend_server.wait(frontend_server.queue(prompt))
    assert entry["status"]["status_str"] == "success"


def handles(page):
    return page.locator(".mf-path").first.locator(".handle")


def test_points_are_moved_added_and_removed_with_the_keyboard(page):
    page.evaluate("""() => { const n = app.graph.nodes.find((n) => n.comfyClass === 'MFPath')
      const shape = n.widgets.find((w) => w.name === 'shape'); shape.value = 'points'; shape.callback('points') }""")
    until(page, lambda: handles(page).count(), 4)
    handles(page).nth(1).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    until(page, lambda: points(page)[1], pytest.approx([0.49, 0.9]))
    page.keyboard.press("Tab")
    page.keyboard.press("Delete")
    until(page, lambda: points(page), [[1, 1], [0.49, 0.9], [0, 0]])
    page.keyboard.press("Insert")
    until(page, lambda: len(points(page)), 4)
    # The ends stay, and so does the node.
    handles(page).first.focus()
    page.keyboard.press("Delete")
    page.wait_for_timeout(500)
    assert len(points(page)) == 4
    page.keyboard.press("Control+z")
    until(page, lambda: points(page), [[1, 1], [0.49, 0.9], [0, 0]])


def test_the_sampler_shows_the_path_and_gives_its_widgets_over(page):
    assert page.locator(".mf-path").count() == 2
    until(page, lambda: page.locator(".mf-path").nth(1).locator(".dot").count(), 9)
    replaced = {"steps", "tilt", "sampler_name", "scheduler", "denoise", "control_strength"}
    assert set(page.evaluate(DISABLED)) == replaced
    page.evaluate("""() => { const n = app.graph.nodes.find((n) => n.comfyClass === 'MFSampler')
      n.disconnectInput(n.findInputSlot('path')) }""")
    page.wait_for_function("document.querySelectorAll('.mf-path').length === 1")
    assert page.evaluate(DISABLED) == []


def test_what_cannot_be_a_path_is_said(page):
    page.evaluate("""() => { const n = app.graph.nodes.find((n) => n.comfyClass === 'MFPath')
      const widget = (name) => n.widgets.find((w) => w.name === name)
      const set = (name, value) => { widget(name).value = value; widget(name).callback(value) }
      set('points', '0.2,0.2 1,1'); set('shape', 'points') }""")
    page.wait_for_selector(".mf-path .said.error")
    assert "may not rise" in page.locator(".mf-path .said.error").first.text_content()


def test_the_square_speaks_chinese(frontend_server):
    with frontend(frontend_server, **{"Comfy.VueNodes.Enabled": False, "Comfy.Locale": "zh"}) as page:
        page.evaluate(BUILD)
        page.wait_for_selector(".mf-path .handle")
        assert "图像先行" in page.locator(".mf-path svg").first.text_content()


def test_the_square_knows_the_widgets_of_the_nodes(object_info):
    script = (PACK / "web" / "js" / "mf_path.js").read_text(encoding="utf-8")
    inputs = node_inputs(object_info["MFPath"])
    used = script.partition("const USED_BY = {")[2].partition("}")[0]
    for line in filter(None, (line.strip().rstrip(",") for line in used.splitlines())):
        name, _, shapes = line.partition(": ")
        assert name in inputs
        assert set(json.loads(shapes.replace("'", '"'))) <= set(inputs["shape"][1]["options"])
    replaced = script.partition("const REPLACED = ")[2].partition("\n")[0]
    assert set(json.loads(replaced.replace("'", '"'))) <= set(node_inputs(object_info["MFSampler"]))
