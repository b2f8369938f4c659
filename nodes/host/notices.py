"""What a person should know about a run that goes on: in the log, and as a toast that names the node.

Relies on: ``server.PromptServer.send_sync``, ``comfy_execution.utils.get_executing_context``. The page's
``web/js/notices.js`` shows what is sent.
"""

from __future__ import annotations

import logging

from comfy_execution.utils import get_executing_context
from server import PromptServer

#: The name of the message to the browser.
EVENT = "modality_forcing.notice"

logger = logging.getLogger(__name__)


def notice(sentence: str) -> None:
    """Warn about the node that is being executed, without stopping it."""
    logger.warning("%s", sentence)
    server = getattr(PromptServer, "instance", None)
    if server is None:  # a script with ComfyUI's modules and no server
        return
    context = get_executing_context()
    node = None if context is None else context.node_id
    server.send_sync(EVENT, {"node": node, "text": sentence}, server.client_id)
