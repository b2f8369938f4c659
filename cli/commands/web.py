"""``mforce app``: a web page for the three tasks."""

from __future__ import annotations

from typing import Annotated

import typer

from ...mforce_core.settings import BUILT_IN
from ..errors import report_errors
from . import options


def app(
    model: options.Model = BUILT_IN,
    text_encoder: options.TextEncoder = None,
    vae: options.Vae = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; by default this computer alone. There is no password.")
    ] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Default: the first free one from 7860.")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    debug: options.Debug = False,
) -> None:
    """A web page: text to picture and depth, picture to depth, depth to picture."""
    with report_errors(debug):
        from ...mforce_core.pipeline import Pipeline
        from ..web_app import serve

        pipeline = Pipeline.load(model, text_encoder=text_encoder, vae=vae, device=device, dtype=dtype)
        serve(pipeline, host, port, open_browser=browser)
