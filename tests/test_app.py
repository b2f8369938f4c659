"""``mforce app``: its runs without a browser, and the page in one where gradio and playwright are installed."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from mforce import Pipeline
from mforce.cli import web_app
from mforce.cli.web_app import Canceled, Runs

PROMPT = "a red cube on a checkered floor"


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline.load()


def joint(pipeline, **settings):
    return lambda progress: pipeline.joint(PROMPT, steps=2, progress=progress, **settings)


def test_a_run_gives_files_and_says_how_far_it_is(pipeline, tmp_path):
    said = []
    runs = Runs(pipeline, tmp_path)
    picture, depth, cloud, files = runs.run(
        "one", runs.ask("one"), lambda *report: said.append(report), joint(pipeline, seed=3)
    )
    assert said == [(0.5, "Step 1 of 2"), (1.0, "Step 2 of 2")]
    assert all(os.path.getsize(path) for path in (picture, depth, cloud, *files))
    assert {os.path.basename(path) for path in files} == set(web_app._DOWNLOADS)


def test_cancel_ends_the_session_s_run_at_the_next_step_and_no_other(pipeline, tmp_path):
    runs = Runs(pipeline, tmp_path)

    def stop_at_the_first(share, _sentence):
        assert share == 0.5
        runs.stop("one")

    with pytest.raises(Canceled):
        runs.run("one", runs.ask("one"), stop_at_the_first, joint(pipeline))
    assert list(tmp_path.iterdir()) == []
    # Nothing of the last run is left.
    runs.run("one", runs.ask("one"), lambda *_: runs.stop("another"), joint(pipeline))


def test_cancel_ends_the_runs_that_wait_and_none_that_is_asked_for_later(pipeline, tmp_path):
    runs, started = Runs(pipeline, tmp_path), []
    waiting, other = [runs.ask("one"), runs.ask("one")], runs.ask("two")
    runs.stop("one")
    for ticket in waiting:
        with pytest.raises(Canceled):
            runs.run("one", ticket, lambda *_: None, started.append)
    assert started == []
    for session, ticket in (("two", other), ("one", runs.ask("one"))):
        assert runs.run(session, ticket, lambda *_: None, joint(pipeline))[3]


def test_a_seed_of_minus_one_is_another_each_time(monkeypatch):
    seen = []
    for seed in (-1, -1, None, 7):
        web_app._bound(lambda *_, **settings: seen.append(settings["seed"]), [20, seed])(None)
    assert seen[3] == 7
    assert len(set(seen)) == 4


def test_without_gradio_a_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs gradio: pip install 'comfyui-modality-forcing\[app\]'"):
        web_app._gradio()


@pytest.fixture
def page_url():
    pytest.importorskip("gradio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = f"import sys; sys.argv = ['mforce', 'app', '--no-browser', '--port', '{port}']"
    served = subprocess.Popen([sys.executable, "-c", f"{program}; from mforce.cli.app import main; main()"])
    url, end = f"http://127.0.0.1:{port}/", time.monotonic() + 300
    try:
        while True:
            try:
                urllib.request.urlopen(url, timeout=30).close()
                break
            except OSError:
                assert served.poll() is None
                assert time.monotonic() < end
                time.sleep(0.5)
        yield url
    finally:
        served.terminate()
        served.wait(60)


def test_text_becomes_picture_depth_and_cloud_in_a_browser(page_url):
    api = pytest.importorskip("playwright.sync_api")
    arguments = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    chromium = shutil.which("chromium") or pytest.skip("no chromium")
    elsewhere, tabs = [], ("Picture to depth", "Depth to picture")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page()
        page.on("request", lambda request: elsewhere.append(request.url))
        page.goto(page_url)
        page.fill("#joint-prompt textarea, #joint-prompt input", PROMPT)
        page.click("#joint-run")
        for part in ("#joint-picture img", "#joint-depth img", "#joint-cloud canvas"):
            page.wait_for_selector(part, timeout=300_000)
        assert page.locator("#joint-files a").count() >= len(web_app._DOWNLOADS)
        for tab in tabs:
            page.get_by_role("tab", name=tab).click()
        page.click("#d2i-run")
        page.get_by_text("Give a depth file first.").wait_for(timeout=60_000)
        browser.close()
    assert all(url.startswith((page_url, "data:", "blob:")) for url in elsewhere)
