"""``mforce app``: the three tasks as a web page, for one person at a time."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..mforce_core.pipeline import Pipeline, Progress
from ..mforce_core.release import LOG2_ALPHA
from ..mforce_core.results.result import Result

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
        self._stopped: set[str] = set()

    def stop(self, session: str) -> None:
        """End the session's run at its next step."""
        self._stopped.add(session)

    def run(
        self, session: str, report: Callable[[float, str], None], start: Callable[[Progress], Result]
    ) -> tuple[str, str, str, list[str]]:
        """Start a run; the paths of its picture, depth picture, cloud and files.

        Args:
            report: called with the finished share and a sentence after every step.

        Raises:
            Canceled: `stop` was called meanwhile.
        """
        self._stopped.discard(session)

        def progress(step: int, steps: int) -> None:
            if session in self._stopped:
                raise Canceled
            report(step / steps, f"Step {step} of {steps}")

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

    def handler(start: Callable[..., Result]) -> Callable[..., Any]:
        meter = gr.Progress()

        def handle(given: dict[Any, Any], request: Any, progress: Any = meter) -> Any:
            values = [given[one] for one in handle.inputs]  # type: ignore[attr-defined]

            def report(share: float, sentence: str) -> None:
                progress(share, desc=sentence)

            try:
                return runs.run(str(request.session_hash), report, _bound(start, values))
            except Canceled:
                raise gr.Error("Canceled.", title="") from None
            except (ValueError, OSError) as error:
                raise gr.Error(str(error), title="") from error

        handle.__annotations__["request"] = gr.Request  # by which gradio knows what to give
        return handle

    def tab(name: str, inputs: list[Any], start: Callable[..., Result], examples: list[list[Any]]) -> None:
        steps = gr.Slider(1, 100, value=20, step=1, label="Steps")
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
        handle = handler(start)
        handle.inputs = [*inputs, steps, seed]  # type: ignore[attr-defined]
        go.click(handle, set(handle.inputs), outputs)  # type: ignore[attr-defined]
        cancel.click(_stopper(gr, runs), None, None, queue=False)
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
                lambda words, lean, **more: pipeline.joint(words, tilt=lean, **more),
                [[words, LOG2_ALPHA] for words in _PROMPTS],
            )
        with gr.Tab("Picture to depth"):
            picture = gr.Image(type="filepath", label="Picture", elem_id="i2d-input", height=260)
            tab(
                "i2d",
                [picture],
                lambda file, **more: pipeline.i2d(_given(file, "a picture"), **more),
                [[str(path)] for path in _scenes("")],
            )
        with gr.Tab("Depth to picture"):
            depth = gr.File(label="Depth: .npy, .exr, .pfm, or a 16-bit .png or .tiff", elem_id="d2i-input")
            text = gr.Textbox(_REPAINT, label="Prompt", elem_id="d2i-prompt")
            tab(
                "d2i",
                [depth, text],
                lambda file, words, **more: pipeline.d2i(_given(file, "a depth file"), words, **more),
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


def _stopper(gr: Any, runs: Runs) -> Callable[..., None]:
    def stop(request: Any) -> None:
        runs.stop(str(request.session_hash))

    stop.__annotations__["request"] = gr.Request
    return stop


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
