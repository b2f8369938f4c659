"""The server's answer to the square of MF Path: the noise levels that the node's widgets make.

So the square shows what will be run, whatever the node can do, and the browser needs no formulas.

Relies on: ``PromptServer`` and its routes, which are aiohttp's.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web
from server import PromptServer

from ...mforce_core.release import MAX_STEPS
from .path_plan import read_path

ROUTE = "/mforce/path"


def add_path_route() -> None:
    """Answer at :data:`ROUTE`; called once, when ComfyUI loads the pack."""

    @PromptServer.instance.routes.post(ROUTE)
    async def path(request: web.Request) -> web.Response:
        try:
            return web.json_response(answer(await request.json()))
        except ValueError as problem:
            return web.json_response({"error": str(problem)})


def answer(values: Any) -> dict[str, list[float]]:
    """The levels of both streams for the values of MF Path's widgets.

    Raises:
        ValueError: values that make no path.
    """
    try:
        if not 1 <= values["steps"] <= MAX_STEPS:
            raise ValueError(f"steps must be from 1 to {MAX_STEPS}.")
        path = read_path(values).build(values["steps"])
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError("this is not what the widgets of MF Path hold.") from problem
    return {"rgb": list(path.rgb), "depth": list(path.depth)}
