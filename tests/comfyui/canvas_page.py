"""A person at ComfyUI's page, in a headless Chromium: searches for nodes, drags links, presses Run."""

from __future__ import annotations

import os
import shutil
from typing import Any

_ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
# Where things are on the page, in its pixels.
_SLOT = """([title, name, output]) => {
  const canvas = window.app.canvas
  const node = canvas.graph.nodes.find((one) => one.title === title)
  const slots = output ? node.outputs : node.inputs
  const index = slots.findIndex((one) => one.name === name)
  const at = output ? node.getOutputPos(index) : node.getInputPos(index)
  const [x, y] = canvas.ds.convertOffsetToCanvas(at)
  const frame = canvas.canvas.getBoundingClientRect()
  return [frame.left + x, frame.top + y]
}"""
_POINT = """([x, y]) => {
  const canvas = window.app.canvas
  const [left, top] = canvas.ds.convertOffsetToCanvas([x, y])
  const frame = canvas.canvas.getBoundingClientRect()
  return [frame.left + left, frame.top + top]
}"""


class Page:
    """An empty canvas, seen at half its size."""

    def __init__(self, url: str, width: int = 1600, height: int = 900) -> None:
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        executable = os.environ.get("CHROMIUM") or shutil.which("chromium")
        self._browser = self._playwright.chromium.launch(executable_path=executable, args=_ARGUMENTS)
        self.page = self._browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(120_000)
        self.complaints: list[str] = []
        self.found: list[str] = []  # the results of the last search, best first
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url)
        self.page.wait_for_function("() => window.app?.graph && window.app?.canvas", timeout=180_000)
        self.page.wait_for_timeout(4000)
        self.page.keyboard.press("Escape")  # the templates that a first visit is shown
        self.page.evaluate("() => { window.app.graph.clear() }")
        self.look(0.55, 130, 130)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_error: object) -> None:
        self._browser.close()
        self._playwright.stop()

    def look(self, scale: float, x: float, y: float) -> None:
        """Move the view: canvas units times ``scale``, its origin at (x, y) of the page."""
        self.page.evaluate(
            "([scale, x, y]) => { const ds = window.app.canvas.ds; ds.scale = scale;"
            " ds.offset = [x / scale, y / scale]; window.app.canvas.setDirty(true, true) }",
            [scale, x, y],
        )
        self.page.wait_for_timeout(300)

    @property
    def _search_box(self) -> Any:
        return self.page.get_by_role("combobox").or_(self.page.get_by_placeholder("Add a node")).first

    def open_search(self, left: float, top: float) -> None:
        """Double-click the canvas at a place of the page."""
        for _attempt in range(5):  # a busy page takes two clicks for two single ones
            self.page.mouse.dblclick(left, top)
            self.page.wait_for_timeout(4000)
            if self._search_box.is_visible():
                break
        self._search_box.wait_for()

    def offered(self, words: str) -> list[str]:
        """What the open search offers for words, best first, once the list has come to rest."""
        before = self._options()
        self._search_box.fill(words)
        rested, last = 0, before
        for _ in range(100):
            self.page.wait_for_timeout(300)
            found = self._options()
            # The list of other words is no answer, unless it stays for long: two words may find the same.
            rested = rested + 1 if found == last else 0
            last = found
            if rested >= (4 if found != before else 20):
                break
        return last

    def _options(self) -> list[str]:
        return [text.partition("\n")[0] for text in self.page.get_by_role("option").all_inner_texts()]

    def search(self, words: str, name: str, x: float, y: float) -> None:
        """Double-click the canvas at (x, y), type words, take the result that is called ``name``."""
        left, top = self.page.evaluate(_POINT, [x, y])
        before = self.count("nodes")
        self.open_search(left, top)
        results = self.page.get_by_role("option")
        self.page.keyboard.type(words, delay=15)
        wanted = results.filter(has_text=name).first
        wanted.wait_for()
        self.page.wait_for_timeout(800)  # the list comes in parts
        self.found = [text.partition("\n")[0] for text in results.all_inner_texts()]
        results.nth(self.found.index(name)).click()
        results.first.wait_for(state="hidden")
        self.page.wait_for_timeout(500)
        self.page.mouse.move(left, top)
        self.page.mouse.click(left, top)  # until then the node hangs on the pointer
        self.page.wait_for_timeout(500)
        assert self.count("nodes") == before + 1
        self.page.evaluate(
            "([x, y]) => { const node = window.app.graph.nodes.at(-1); node.pos = [x, y];"
            " window.app.canvas.setDirty(true, true) }",
            [x, y],
        )
        self.page.wait_for_timeout(300)

    def drag(self, origin: str, output: str, target: str, socket: str) -> None:
        """Draw a link from an output to an input."""
        before = self.count("links")
        start = self.page.evaluate(_SLOT, [origin, output, True])
        end = self.page.evaluate(_SLOT, [target, socket, False])
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*[(one + other) / 2 for one, other in zip(start, end, strict=True)], steps=4)
        self.page.mouse.move(*end, steps=4)
        self.page.mouse.up()
        self.page.wait_for_timeout(300)
        assert self.count("links") == before + 1, (origin, output, target, socket)

    def count(self, what: str) -> int:
        """How many nodes or links are on the canvas."""
        expressions = {"nodes": "window.app.graph.nodes.length", "links": "window.app.graph.links.size"}
        return int(self.page.evaluate(f"() => {expressions[what]}"))

    def titles(self) -> list[str]:
        return list(self.page.evaluate("() => window.app.graph.nodes.map((one) => one.title)"))

    def run(self) -> str:
        """Press Run; the id of the prompt."""
        with self.page.expect_response(lambda answer: answer.url.endswith("/prompt")) as sent:
            self.page.keyboard.press("Control+Enter")
        answer: dict[str, Any] = sent.value.json()
        assert not answer.get("node_errors"), answer
        return str(answer["prompt_id"])

    def picture(self, path: str, **options: Any) -> None:
        self.page.screenshot(path=path, timeout=180_000, **options)
