"""Help pages and locales against the node definitions that a real ComfyUI gave; no server needed."""

import ast
import json
import re

import pytest

from mforce.mforce_core.depth.files import SUFFIXES

from .host import PACK
from .record_object_info import CHINESE, ENGLISH, PAGES, RECORD, SECTIONS, node_texts, pack_nodes, page_path
from .workflow_prompt import node_inputs

NODES = pack_nodes(json.loads(RECORD.read_text(encoding="utf-8")))
# What the frontend's translation library takes for syntax; it would show such a text wrong.
MESSAGE_SYNTAX = re.compile(r"[{}|@]")
FULL_WIDTH_COLON = "\uff1a"
CJK = re.compile(r"[\u4e00-\u9fff]")


def sections(text):
    """The sections of a page by their headings."""
    _, *parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def documented(section):
    """Names in the first column of a section's table."""
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    return {name for row in rows[2:] for name in re.findall(r"`(\w+)`", row)}


def leaves(texts, path=()):
    """(path, text) of everything that a locale says."""
    for key, value in texts.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


@pytest.mark.parametrize("language", SECTIONS)
@pytest.mark.parametrize("node", NODES)
def test_a_help_page_explains_every_input_and_output_and_no_other(node, language):
    info = NODES[node]
    text = page_path(node, language).read_text(encoding="utf-8")
    parts = sections(text)
    assert tuple(parts) == SECTIONS[language]
    assert all(part.strip() for part in parts.values())
    inputs, outputs = (parts[heading] for heading in SECTIONS[language][:2])
    assert documented(inputs) == set(node_inputs(info))
    # An output that is called as its type is shown by the type's name, which may be translated.
    assert documented(outputs) == set(info["output_name"])
    if language == "zh":
        assert info["display_name"] in text.partition("\n")[0]


def test_there_are_no_help_pages_of_other_nodes():
    assert {path.stem for path in PAGES.glob("*.md")} == set(NODES)
    assert {path.parent.name for path in PAGES.glob("*/*.md")} == set(NODES)
    assert {path.name for path in PAGES.glob("*/*")} == {"zh.md"}


@pytest.mark.parametrize("language", SECTIONS)
@pytest.mark.parametrize("node", NODES)
def test_a_help_page_names_only_options_that_exist(node, language):
    part = sections(page_path(node, language).read_text(encoding="utf-8"))[SECTIONS[language][0]]
    inputs = node_inputs(NODES[node])
    for row in (line for line in part.splitlines() if line.startswith("|")):
        name, meaning = row.split("|")[1:3]
        for kind, spec in (inputs[name] for name in re.findall(r"`(\w+)`", name)):
            if kind == "COMBO" and spec["options"] and "models/" not in meaning:
                assert set(re.findall(r"`([^`]+)`", meaning)) <= set(spec["options"]), name


def texts_of_the_code():
    """Every string in the nodes and what they are made of, with a null character for each value that is filled in."""
    for package in ("nodes", "mforce_core"):
        for file in (PACK / package).rglob("*.py"):
            for part in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value
                elif isinstance(part, ast.JoinedStr):
                    yield "".join(piece.value if isinstance(piece, ast.Constant) else "\0" for piece in part.values)


def says(text, quote):
    """Whether a string of the code can become a message with this quote in it; most of it word for word."""
    words = [r"\S*.*?" if word == "…" else rf"(?:{re.escape(word)}|\S*\0\S*)" for word in quote.split()]
    found = re.search(r"\s*".join(words), text)
    return found is not None and 2 * found[0].count("\0") < len(words)


@pytest.mark.parametrize("language", SECTIONS)
def test_messages_that_help_pages_quote_exist(language):
    known, quoted = list(texts_of_the_code()), 0
    for node in NODES:
        problems = sections(page_path(node, language).read_text(encoding="utf-8"))[SECTIONS[language][3]]
        for title in re.findall(r"\*\*(.+?)\*\*", problems):
            for quote in re.findall(r'"(.+?)"' if language == "en" else r"“([ -~…]+?)”", title):
                assert any(says(text, quote) for text in known), (node, quote)
                quoted += 1
    assert quoted > 20


def test_the_english_locale_is_what_the_nodes_say():
    english = json.loads(ENGLISH.read_text(encoding="utf-8"))
    expected = {name: node_texts(info) for name, info in NODES.items()}
    assert english == expected, "run tests/comfyui/record_object_info.py"


def test_the_chinese_locale_says_all_that_the_english_does():
    english, chinese = (json.loads(path.read_text(encoding="utf-8")) for path in (ENGLISH, CHINESE))
    assert {path for path, _ in leaves(chinese)} == {path for path, _ in leaves(english)}
    for path, text in leaves(chinese):
        if path[-1] != "name":  # cfg, vae and Latent are called so in ComfyUI's own Chinese too
            assert CJK.search(text), path


@pytest.mark.parametrize("locale", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_locales_have_no_message_syntax(locale):
    for path, text in leaves(json.loads(locale.read_text(encoding="utf-8"))):
        assert not MESSAGE_SYNTAX.search(text), path


def test_options_keep_their_names_in_chinese():
    chinese = json.loads(CHINESE.read_text(encoding="utf-8"))
    explained = 0
    for node, info in NODES.items():
        for name, (kind, spec) in node_inputs(info).items():
            for option in spec["options"] if kind == "COMBO" else []:
                # Tooltips explain options as "option: what it does."
                if re.search(rf"(^|[.:] ){re.escape(option)}:", spec["tooltip"]):
                    assert f"{option}{FULL_WIDTH_COLON}" in chinese[node]["inputs"][name]["tooltip"], (node, name)
                    explained += 1
    assert explained > 20


def test_the_browser_offers_the_depth_files_that_are_read():
    script = (PACK / "web" / "js" / "upload_depth.js").read_text(encoding="utf-8")
    (listed,) = re.findall(r"const SUFFIXES = \[(.+)\]", script)
    assert tuple(re.findall(r"'([^']+)'", listed)) == SUFFIXES
