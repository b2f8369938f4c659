"""Pages of the site that are written somewhere else already: a hook of mkdocs makes them while it builds.

The help pages of the nodes, the command line's own help, the docstrings of the public names and the files at the root
of the repository each have one source. None of them is copied into docs/.
"""

from __future__ import annotations

import atexit
import importlib
import inspect
import json
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
HELP_PAGES = ROOT / "web" / "docs"
NODE_TEXTS = ROOT / "locales" / "en" / "nodeDefs.json"

#: File outside docs/ -> page of the site that is made of it.
ROOT_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "models/nano/README.md": "nano.md",
    "models/nano-fast/README.md": "nano-fast.md",
}

#: What else pages link to outside docs/ -> page of the site.
OTHER_PAGES = {
    "cli": "command-line.md",
    "mforce_core/__init__.py": "reference/python.md",
    "web/docs": "nodes/index.md",
}

#: Modules whose `__all__` is the public Python interface, in the order of the page.
PUBLIC_MODULES = ("mforce.mforce_core",)


def on_startup(command: str, dirty: bool) -> None:
    """Show mkdocstrings the package (called by mkdocs before it configures any plugin).

    It looks for `mforce` in the folders of the path, and the checkout is that package whatever its folder is called.
    """
    packages = tempfile.mkdtemp(prefix="mforce-docs-")
    (Path(packages) / "mforce").symlink_to(ROOT, target_is_directory=True)
    atexit.register(shutil.rmtree, packages)
    sys.path.append(packages)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the nodes' pages in the navigation (called by mkdocs)."""
    nodes: list[str | dict[str, str]] = ["nodes/index.md"]
    nodes += [{text["display_name"]: f"nodes/{name}.md"} for name, text in _node_texts().items()]
    config.nav = [{"Nodes": nodes} if "Nodes" in item else item for item in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages (called by mkdocs)."""
    pages = {
        **{
            page: with_site_links((ROOT / source).read_text(encoding="utf-8"), source, page)
            for source, page in ROOT_PAGES.items()
        },
        **_node_pages(),
        "command-line.md": _command_line(),
        "reference/python.md": _python_reference(),
    }
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page, which lead somewhere in the repository, too (called by mkdocs)."""
    return with_site_links(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def with_site_links(text: str, source: str, page: str) -> str:
    """A page with its links to files of the repository turned into links between pages of the site.

    Args:
        source: path of its file in the repository, from which its links start.
        page: its own page of the site.
    """

    def linked(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        there = {**ROOT_PAGES, **OTHER_PAGES}.get(target)
        if there is None and target.startswith("web/docs/"):
            there = target.replace("web/docs/", "nodes/", 1)
        elif there is None and target.startswith("docs/"):
            there = target.removeprefix("docs/")
        return found[0] if there is None else f"]({posixpath.relpath(there, posixpath.dirname(page) or '.')}"

    return re.sub(r"\]\(([^)#:\s]+)", linked, text)


def _node_pages() -> dict[str, str]:
    """The help pages that ComfyUI shows, and an index of them."""
    pages = {}
    rows = ["| Node | What it does |", "|---|---|"]
    for name, node in _node_texts().items():
        help_page = (HELP_PAGES / f"{name}.md").read_text(encoding="utf-8")
        pages[f"nodes/{name}.md"] = f"# {node['display_name']}\n\n{help_page}"
        rows.append(f"| [{node['display_name']}]({name}.md) | {node['description']} |")
    introduction = "# Nodes\n\nThe same pages open in ComfyUI: select a node and press *i*.\n\n"
    return {"nodes/index.md": introduction + "\n".join(rows) + "\n", **pages}


def _node_texts() -> dict[str, dict[str, str]]:
    """Node id -> its display name, description and so on."""
    return json.loads(NODE_TEXTS.read_text(encoding="utf-8"))


def _command_line() -> str:
    """What `mforce --help` and the help of each command say, by Typer's own generator."""
    command = [sys.executable, "-m", "typer", "mforce.cli.app", "utils", "docs", "--name", "mforce"]
    run = subprocess.run([*command, "--title", "Command line"], capture_output=True, text=True, check=True)
    return run.stdout


def _python_reference() -> str:
    """One mkdocstrings entry for each public name, found where it is defined."""
    parts = ["# Python"]
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        parts.append(f"{inspect.getdoc(module)}\n\n```python\nfrom {module_name} import ...\n```")
        for name in sorted(module.__all__):
            value = getattr(module, name)
            parts.append(f"::: {value.__module__}.{value.__qualname__}")
    return "\n\n".join(parts) + "\n"
