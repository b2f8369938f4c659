"""``mforce app``: the three tasks as a web page, for one person at a time."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from ..mforce_core.pipeline import Pipeline, Progress
from ..mforce_core.release import LOG2_ALPHA
from ..mforce_core.results.result import Result
from ..mforce_core.settings import DEPTH_STEPS, FAST_SAMPLER, FAST_SIGMA, FAST_STEPS

_EXAMPLES = Path(__file__).resolve().parents[1] / "nodes" / "examples"
_PROMPTS = ("a red cube on a checkered floor", "a green ball behind a yellow cone with a brick wall")
_REPAINT = "a red cone and a blue ball on a tiled floor"
_DOWNLOADS = ("rgb.png", "depth_preview.png", "depth.npy", "depth_16.png", "cloud.ply", "cloud.glb", "metadata.json")
_RANDOM = -1


class Canceled(Exception):
    """The person pressed Cancel."""


class Runs:
    """Runs of one pipeline for the page, one after another.

    Args:
        folder: where results go, a folder for each.
    """

    def __init__(self, pipeline: Pipeline, folder: Path) -> None:
        self.pipeline, self.folder = pipeline, folder
        self._tickets = count(1)
        self._asked: dict[str, int] = {}  # by session: its last ticket
        self._stopped: dict[str, int] = {}  # by session: the last ticket that is stopped

    def ask(self, session: str) -> int:
        """A ticket for a run, which may have to wait for others."""
        self._asked[session] = next(self._tickets)
        return self._asked[session]

    def stop(self, session: str) -> None:
        """End the session's runs: the one that runs at its next step, those that wait when their turn comes."""
        self._stopped[session] = self._asked.get(session, 0)

    def run(
        self, session: str, ticket: int, report: Callable[[float, str], None], start: Callable[[Progress], Result]
    ) -> tuple[str, str, str, list[str]]:
        """Start a run; the paths of its picture, depth picture, cloud and files.

        Args:
            ticket: from `ask`.
            report: called with the finished share and a sentence after every step.

        Raises:
            Canceled: `stop` was called since the ticket was given.
        """

        def check() -> None:
            if ticket <= self._stopped.get(session, 0):
                raise Canceled

        def progress(step: int, steps: int) -> None:
            check()
            report(step / steps, f"Step {step} of {steps}")

        check()
        result = start(progress)
        folder = Path(tempfile.mkdtemp(dir=self.folder)) / "result"
        result.save(folder)
        files = [str(folder / name) for name in _DOWNLOADS if (folder / name).is_file()]
        return str(folder / "rgb.png"), str(folder / "depth_preview.png"), str(folder / "cloud.glb"), files


def build(pipeline: Pipeline, folder: Path) -> Any:
    """The page as a gradio ``Blocks``.

    Raises:
        ModuleNotFoundError: gradio is not installed.
    """
    gr = _gradio()
    runs = Runs(pipeline, folder)
    few = pipeline.distilled

    def handler(start: Callable[..., Result], inputs: list[Any], ticket: Any) -> Callable[..., Any]:
        meter = gr.Progress()

        def handle(given: dict[Any, Any], request: Any, progress: Any = meter) -> Any:
            values = [given[one] for one in inputs]

            def report(share: float, sentence: str) -> None:
                progress(share, desc=sentence)

            try:
                return runs.run(str(request.session_hash), given[ticket], report, _bound(start, values))
            except Canceled:
                raise gr.Error("Canceled.", title="") from None
            except (ValueError, OSError) as error:
                raise gr.Error(str(error), title="") from error

        handle.__annotations__["request"] = gr.Request  # by which gradio knows what to give
        return handle

    def tab(
        name: str, inputs: list[Any], start: Callable[..., Result], examples: list[list[Any]], usual: int = FAST_STEPS
    ) -> None:
        steps = gr.Slider(1, 100, value=usual if few is None else few.steps_of(name), step=1, label="Steps")
        seed = gr.Number(_RANDOM, precision=0, label="Seed (-1: another one each time)")
        with gr.Row():
            go = gr.Button("Run", variant="primary", elem_id=f"{name}-run")
            cancel = gr.Button("Cancel", elem_id=f"{name}-cancel")
        with gr.Row():
            outputs = [
                gr.Image(label="Picture", elem_id=f"{name}-picture", interactive=False),
                gr.Image(label="Depth, near is red", elem_id=f"{name}-depth", interactive=False),
                gr.Model3D(label="Point cloud", elem_id=f"{name}-cloud"),
            ]
        outputs.append(gr.Files(label="Downloads", elem_id=f"{name}-files"))
        ticket, given = gr.State(), [*inputs, steps, seed]
        asked = go.click(_with_session(gr, runs.ask), None, ticket, queue=False)
        asked.then(handler(start, given, ticket), {*given, ticket}, outputs)
        cancel.click(_with_session(gr, runs.stop), None, None, queue=False)
        gr.Examples(examples, inputs)

    with gr.Blocks(title="Modality Forcing", analytics_enabled=False) as page:
        gr.Markdown("# Modality Forcing\nA picture and its depth from one diffusion transformer.")
        with gr.Tab("Text to picture + depth"):
            prompt = gr.Textbox(_PROMPTS[0], label="Prompt", elem_id="joint-prompt")
            label = "Tilt: above 0 the picture leads, below 0 the depth"
            tilt = gr.Slider(-10, 10, value=LOG2_ALPHA, step=0.5, label=label)
            tab(
                "joint",
                [prompt, tilt],
                lambda words, lean, **more: pipeline.joint(words, **_tilted(pipeline, lean), **more),
                [[words, LOG2_ALPHA] for words in _PROMPTS],
            )
        with gr.Tab("Picture to depth"):
            picture = gr.Image(type="filepath", label="Picture", elem_id="i2d-input", height=260)
            tab(
                "i2d",
                [picture],
                lambda file, **more: pipeline.i2d(_given(file, "a picture"), **more),
                [[str(path)] for path in _scenes("")],
                DEPTH_STEPS,
            )
        with gr.Tab("Depth to picture"):
            depth = gr.File(label="Depth: .npy, .exr, .pfm, or a 16-bit .png or .tiff", elem_id="d2i-input")
            text = gr.Textbox(_REPAINT, label="Prompt", elem_id="d2i-prompt")
            tab(
                "d2i",
                [depth, text],
                lambda file, words, **more: pipeline.d2i(
                    _given(file, "a depth file"), words, **_fast(pipeline, "d2i"), **more
                ),
                [[str(path), _REPAINT] for path in _scenes("_depth")],
            )
    page.queue(default_concurrency_limit=1)
    return page


def serve(pipeline: Pipeline, host: str, port: int | None, *, open_browser: bool) -> None:
    """Serve the page until Ctrl-C; results are deleted then.

    Raises:
        ModuleNotFoundError: gradio is not installed.
        OSError: the port is taken.
    """
    gr = _gradio()
    with tempfile.TemporaryDirectory(prefix="mforce-app-") as folder:
        page = build(pipeline, Path(folder))
        # Fonts of the system: the page loads nothing from elsewhere.
        theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        page.launch(server_name=host, server_port=port, inbrowser=open_browser, allowed_paths=[folder], theme=theme)


def _bound(start: Callable[..., Result], values: list[Any]) -> Callable[[Progress], Result]:
    *inputs, steps, seed = values
    seed = random.getrandbits(31) if seed in (None, _RANDOM) else int(seed)
    return lambda progress: start(*inputs, steps=int(steps), seed=seed, progress=progress)


def _with_session(gr: Any, call: Callable[[str], Any]) -> Callable[[Any], Any]:
    """A handler that calls with the name of the page's session."""

    def handle(request: Any) -> Any:
        return call(str(request.session_hash))

    handle.__annotations__["request"] = gr.Request  # by which gradio knows what to give
    return handle


def _tilted(pipeline: Pipeline, tilt: float) -> dict[str, Any]:
    """How text becomes picture and depth; a model of few steps has its own path at the usual tilt."""
    return _fast(pipeline, f"tilt log2_alpha={tilt:g}") or {"tilt": tilt}


def _fast(pipeline: Pipeline, path: str) -> dict[str, Any]:
    """The solver and the path of ``--fast``; nothing for a model of few steps, which is fast as it was made."""
    return {} if pipeline.distilled else {"sampler": FAST_SAMPLER, "path": f"{path} sigma={FAST_SIGMA}"}


def _given(value: Any, what: str) -> Any:
    if value is None:
        raise ValueError(f"Give {what} first.")
    return value


def _scenes(suffix: str) -> list[Path]:
    return [_EXAMPLES / f"{caption.stem}{suffix}.png" for caption in sorted(_EXAMPLES.glob("*.txt"))]


def _gradio() -> Any:
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("The web page needs gradio: pip install 'comfyui-modality-forcing[app]'.") from error
    return gradio
