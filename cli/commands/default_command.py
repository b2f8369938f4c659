"""A group of commands whose own name runs one of them."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class DefaultCommandGroup(TyperGroup):
    """``mforce eval --scenes 4`` is ``mforce eval scenes --scenes 4``: what names no command is for the first one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = next(iter(self.commands))
        if not args or (args[0] not in self.commands and args[0] not in ("--help", "-h")):
            args = [first, *args]
        return super().parse_args(ctx, args)
