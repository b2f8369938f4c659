"""Write into pyproject.toml what the Comfy Registry reads there and the repository's own copy had better not hold.

The registry takes the supported frontend from a dependency on comfyui-frontend-package, which would bring 85 MB to
everyone who installs the command line. Icon, banner and links need the repository's address, which no fork shares.

Usage, where the package is published: python .github/registry_fields.py OWNER/NAME TAG
"""

from __future__ import annotations

import sys
from pathlib import Path

#: The frontend of ComfyUI 0.33, with which the pack is tested.
FRONTEND = "comfyui-frontend-package>=1.49.6"
DEPENDENCIES, COMFY = "\ndependencies = [\n", "\n[tool.comfy]\n"


def with_registry_fields(text: str, repository: str, tag: str) -> str:
    """The text of pyproject.toml with the fields.

    Raises:
        ValueError: the text has no place for them.
    """
    for place in (DEPENDENCIES, COMFY):
        if text.count(place) != 1:
            raise ValueError(f"pyproject.toml must have {place.strip()!r} once.")
    page, images = (
        f"https://github.com/{repository}",
        f"https://raw.githubusercontent.com/{repository}/{tag}/docs/images",
    )
    links = {"Repository": page, "Documentation": f"{page}/blob/{tag}/README.md", "Issues": f"{page}/issues"}
    pictures = {"Icon": f"{images}/icon.png", "Banner": f"{images}/banner.jpg"}
    text = text.replace(DEPENDENCIES, f'{DEPENDENCIES}    "{FRONTEND}",\n')
    text = text.replace(COMFY, f"{COMFY}{_lines(pictures)}")
    return text.replace(COMFY, f"\n[project.urls]\n{_lines(links)}{COMFY}")


def _lines(values: dict[str, str]) -> str:
    return "".join(f'{name} = "{value}"\n' for name, value in values.items())


if __name__ == "__main__":
    file = Path("pyproject.toml")
    file.write_text(with_registry_fields(file.read_text(encoding="utf-8"), *sys.argv[1:]), encoding="utf-8")
