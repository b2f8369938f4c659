"""ComfyUI's own frontend in a browser, to be clicked at."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .host import Server

_FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
# The first workflow is there when it is the active one; what is loaded before would give way to it.
_READY = "window.app?.graph && window.app.extensionManager?.workflow?.activeWorkflow?.changeTracker"


@contextmanager
def frontend(server: Server, **settings: Any) -> Iterator[Any]:
    """A page with the frontend and an empty graph, in English unless the settings say otherwise.

    Skips the test where there is no Chromium; BROWSER_PATH names one that is not on the PATH. What breaks in the page
    fails the test.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    executable = os.environ.get("BROWSER_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium on the PATH: install one, or set BROWSER_PATH")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=_FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        broken: list[str] = []
        page.on("pageerror", lambda error: broken.append(str(error)))
        try:
            # Before the first page is shown: these settings choose the renderer and the language of all that follows.
            wanted = {"Comfy.Locale": "en", "Comfy.TutorialCompleted": True, **settings}
            for name, value in wanted.items():
                page.request.post(f"{server.url}/api/settings/{name}", data=json.dumps(value))
            open_graph(page, server)
            yield page
        finally:
            browser.close()
        assert not broken, broken


def open_graph(page: Any, server: Server) -> None:
    """Load the frontend, whose first visit shows a dialog of templates, and wait for its graph."""
    page.goto(server.url)
    page.wait_for_function(_READY, timeout=120_000)
    page.wait_for_timeout(1500)
    page.keyboard.press("Escape")
