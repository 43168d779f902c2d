"""A stage as one file: a page that plays in any browser, without a network and without Jupyter.

It carries the module and the style sheet that the widget uses, as they are, and what was told of
the runs. Its policy lets nothing else be loaded or run, so what a run says stays text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

__all__ = ["TOLD", "as_json", "inline", "module", "page", "policy", "style"]

# What a page is told of a stage, by the names of its traits.
TOLD = ("runs", "key", "problem", "look", "minutes")

_STATIC = Path(__file__).parent / "static"

_PAGE_STYLE = """
:root { color-scheme: light dark; }
body { box-sizing: border-box; margin: 0 auto; padding: 1rem; max-width: 1600px; }
"""

# The sentence stands until the stage starts, before all that a file may be cut short in. The module
# comes before what it reads, so that it is whole, more often than not, and can say what is wrong.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
</head>
<body>
<div id="stage"><p>{sentence}</p></div>
<style>{style}</style>
<script type="module">{module}</script>
<script type="application/json" id="told">{told}</script>
</body>
</html>
"""
# Each imports from those before it.
_MODULES = ("words", "film", "layout", "draw", "pane", "controls", "presenter", "stage")
_COMMENTS = re.compile(r"/\*\*.*?\*/|^\s*//.*?$|\s// [^\"'`]*?$", re.M | re.S)
_OPERATORS = re.compile(r" ?([=<>&|?:,*(){}]+) ?")
_STRINGS = re.compile(r'("[^"]*")')
_WHITE_SPACE = re.compile(
    r"""
    ^\s+                                       # indentation, and empty lines
    | (?<={) \s+ | \s+ (?=})                   # what is in braces
    | (?<==>) \s+ | \s+ (?==>)                 # arrows
    | (?<=[(\[,;]) \n\s* | \n\s* (?=[)\]])    # the ends of most lines
    """,
    re.M | re.X,
)
_SENTENCE = (
    "This page is incomplete: save it again. If it still says so, allow JavaScript; "
    "the stage needs it, and nothing from any network."
)


def page(told: dict[str, Any], title: str) -> str:
    """The page, with what `told` says of the runs, which `open` of the module puts on the stage.

    Raises `ValueError` if the module or the style sheet holds what would end it too early.
    """
    script = inline(module(), "script") + "\nopen();\n"
    sheet = inline(style(), "style") + _PAGE_STYLE
    return _PAGE.format(
        policy=policy(script, sheet),
        title=html.escape(title),
        style=sheet,
        sentence=_SENTENCE,
        module=script,
        told=as_json(told),
    )


def policy(script: str, sheet: str = "") -> str:
    """What a page may load and run: this script and pictures in itself, and nothing else.

    Without a sheet, any style that stands in the page.
    """
    styles = _hash(sheet) if sheet else "'unsafe-inline'"
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {styles}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def module() -> str:
    """The stage's JavaScript as one module, without comments and most of the white space.

    A widget's module is loaded where it can import nothing, and so is that of a page on disk: the
    files stand one after the other instead, and what the last of them exports is what there is.
    """
    files = [re.sub(r"^import .*;\n", "", _read(f"{name}.js"), flags=re.M) for name in _MODULES]
    inner = re.sub(r"^export ", "", "".join(files[:-1]), flags=re.M)
    code = _COMMENTS.sub("", inner + files[-1])
    return _WHITE_SPACE.sub("", "\n".join(map(_closer, code.split("\n"))))


def _closer(line: str) -> str:
    """A line without the space around operators, unless it may be that of a string."""
    if re.search("['`/]", line):  # a template, or a regular expression
        return line
    parts = _STRINGS.split(line)
    return "".join(part if part.startswith('"') else _OPERATORS.sub(r"\1", part) for part in parts)


def style() -> str:
    """The stage's style sheet."""
    return _read("stage.css")


def _read(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


def inline(text: str, element: str) -> str:
    """A text as it can stand in an element. Raises `ValueError` if it would end it too early."""
    for end in (f"</{element}", "<!--"):
        if end in text.lower():
            raise ValueError(f"the {element} cannot stand in a page, as it holds {end!r}")
    return text


def as_json(told: dict[str, Any]) -> str:
    """For a page: in ASCII, so nothing ends a line or a script, or turns the text around."""
    return json.dumps(told, separators=(",", ":")).replace("<", "\\u003c")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
