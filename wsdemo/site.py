"""The course as static pages: stages that move, and neither a kernel nor a network.

Each notebook is run, and becomes one HTML file. A page carries the stage's own module and what was
told of its runs, as a saved stage does (see `page`), and its policy lets nothing else be loaded.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbconvert.filters import Highlight2HTML, markdown2html

from wsdemo.page import TOLD, as_json, inline, module, policy, style
from wsdemo.prediction import ASKED_TO_CHOOSE, ASKED_TO_MARK

__all__ = ["build"]

WIDGETS = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
STYLE = Path(__file__).parent / "static" / "site.css"
CELL_TIMEOUT = 60  # seconds

# Where there is more than is seen, the keyboard can scroll too; elsewhere it need not stop.
_REACH = """
const reach = () => {
  for (const box of document.querySelectorAll("pre:not(.stage *), .scrolls"))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0; else box.removeAttribute("tabindex");
};
addEventListener("resize", reach);
addEventListener("toggle", reach, true);
reach();
"""

_MOUNT = """
for (const told of document.querySelectorAll("script.told"))
  mount(told.previousElementSibling, JSON.parse(told.textContent));
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><nav aria-label="Lessons">{nav}</nav></header>
<main>
{main}
</main>
<footer>{footer}</footer>
{script}
</body>
</html>
"""

_highlight = Highlight2HTML()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Lesson:
    """A notebook that has been run."""

    name: str
    notebook: Any

    @property
    def title(self) -> str:
        """Its first heading."""
        found = re.search(r"^# (.+)$", self.notebook.cells[0].source, re.M)
        return found[1] if found else self.name

    @property
    def short_title(self) -> str:
        """Its heading up to a colon."""
        return self.title.partition(":")[0]

    @property
    def aim(self) -> str:
        """What it says that the reader will learn."""
        found = re.search(r"\*\*You will learn\*\* .+", self.notebook.cells[0].source)
        return found[0].replace("**", "") if found else ""


def build(
    notebooks: Sequence[Path], folder: Path, say: Callable[[str], object] = lambda words: None
) -> None:
    """Run the notebooks and write them into a folder, with an index.

    `say` is told what comes next. Raises `nbclient.exceptions.CellExecutionError` if a cell fails,
    and `OSError` if a page cannot be written.
    """
    lessons = []
    for number, path in enumerate(notebooks, start=1):
        say(f"{number} of {len(notebooks)}: {path.stem}")
        lessons.append(Lesson(path.stem, _run(path)))
    folder.mkdir(parents=True, exist_ok=True)
    for lesson in lessons:
        text = _lesson_page(lesson, lessons)
        (folder / f"{lesson.name}.html").write_text(text, encoding="utf-8")
    (folder / "index.html").write_text(_index_page(lessons), encoding="utf-8")


def _run(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    resources = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        resources=resources,
        store_widget_state=True,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors alone
    )
    return client.execute()


def _lesson_page(lesson: Lesson, lessons: Sequence[Lesson]) -> str:
    at = lessons.index(lesson)
    states = lesson.notebook.metadata.get("widgets", {}).get(WIDGETS, {}).get("state", {})
    parts = [part for cell in lesson.notebook.cells for part in _cell(cell, states)]
    before, after = lessons[max(0, at - 1) : at], lessons[at + 1 : at + 2]
    footer = "".join(_link(each.name, words) for each, words in _ways(before, after))
    return _page(lesson.title, _nav(lessons, lesson.name), "\n".join(parts), footer)


def _ways(before: Sequence[Lesson], after: Sequence[Lesson]) -> Iterator[tuple[Lesson, str]]:
    for each in before:
        yield each, f"← {each.title}"
    for each in after:
        yield each, f"{each.title} →"


def _index_page(lessons: Sequence[Lesson]) -> str:
    rows = "\n".join(
        f"<li>{_link(each.name, each.title)}{_inner(each.aim)}</li>" for each in lessons
    )
    main = (
        "<h1>Why WebSocket servers need a message broker once there are two of them</h1>\n"
        "<p>… and what the broker does not promise. Everything on these pages has happened: each "
        "message that moves went through a real WebSocket, and can be watched again here. To run "
        "it yourself, and change it, open the notebooks.</p>\n"
        f'<ul class="lessons">\n{rows}\n</ul>'
    )
    return _page("wsdemo", _nav(lessons, "index"), main, "")


def _nav(lessons: Sequence[Lesson], current: str) -> str:
    names = [("index", "All lessons"), *((each.name, each.short_title) for each in lessons)]
    return "".join(_link(name, title, is_here=name == current) for name, title in names)


def _link(name: str, words: str, *, is_here: bool = False) -> str:
    here = ' aria-current="page"' if is_here else ""
    return f'<a href="{name}.html"{here}>{html.escape(words)}</a>'


def _page(title: str, nav: str, main: str, footer: str) -> str:
    moves = 'class="told"' in main
    script = inline(module(), "script") + _MOUNT if moves else ""
    if "<pre" in main:
        script += _REACH
    sheet = inline(style() if moves else "", "style") + STYLE.read_text(encoding="utf-8")
    return _PAGE.format(
        policy=policy(script),  # tables say themselves how their cells are aligned
        title=html.escape(title if title == "wsdemo" else f"{title} – wsdemo"),
        style=sheet,
        nav=nav,
        main=main,
        footer=footer,
        script=f'<script type="module">{script}</script>' if script else "",
    )


# Cells


def _cell(cell: Any, states: dict[str, Any]) -> Iterator[str]:
    if cell.cell_type == "markdown":
        yield _inner_page(markdown2html(cell.source))
    elif cell.cell_type == "code":
        yield f'<div class="source">{_highlight(cell.source)}</div>'
        outputs = [text for output in _joined(cell.outputs) for text in _output(output, states)]
        if outputs:
            yield f'<div class="output">{"".join(outputs)}</div>'


def _inner(markdown: str) -> str:
    return str(_inner_page(markdown2html(markdown))).strip()


def _inner_page(text: str) -> str:
    """Links to other notebooks go to their pages; those to what is no page are words, no more.

    And headings are without a sign to link to them by.
    """
    text = re.sub(r'<a class="anchor-link".*?</a>', "", text)
    text = re.sub(r'href="(\w+)\.ipynb"', r'href="\1.html"', text)
    return re.sub(r'<a href="(?!https?:|#|\w+\.html)[^"]*">(.*?)</a>', r"\1", text)


def _joined(outputs: Sequence[Any]) -> Iterator[Any]:
    """What was printed in one go, as one: a kernel sends it in parts."""
    for name, group in groupby(outputs, lambda output: output.get("name")):
        if not name:
            yield from group
            continue
        parts = list(group)
        text = "".join(part.text for part in parts)
        yield nbformat.from_dict({**parts[0], "text": text})  # type: ignore[no-untyped-call]


def _output(output: Any, states: dict[str, Any]) -> Iterator[str]:
    if output.output_type == "stream":
        yield _words(_unasked(output.text))
        return
    data = output.get("data", {})
    state = states.get(data.get(VIEW, {}).get("model_id"), {}).get("state", {})
    if "image/png" in data:
        alt = output.metadata.get("image/png", {}).get("alt", data.get("text/plain", ""))
        picture = _picture(data["image/png"], alt)
        if "runs" in state:
            yield _stage(state, picture)
        else:
            yield picture
    elif "text/html" in data:
        yield f'<div class="scrolls">{data["text/html"]}</div>'
    elif "text/markdown" in data:
        yield _inner_page(markdown2html(data["text/markdown"]))
    elif "text/plain" in data:
        yield _words(data["text/plain"])


def _unasked(text: str) -> str:
    """Without what a prediction asks for: there is nothing to mark or to press in a page."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if line.rstrip() not in (ASKED_TO_MARK, ASKED_TO_CHOOSE))


def _words(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>" if text else ""


def _picture(png: str, alt: str) -> str:
    words = html.escape(" ".join(alt.split()), quote=True)
    return f'<img src="data:image/png;base64,{png.strip()}" alt="{words}">'


def _stage(state: dict[str, Any], picture: str) -> str:
    """The stage as a replay of what had happened when its cell was run."""
    told = {name: state[name] for name in TOLD if name in state}
    live = '<p class="live">In the notebook, this stage is live.</p>' if state.get("live") else ""
    return (
        f'<div class="stage"><noscript>{picture}</noscript></div>'
        f'<script type="application/json" class="told">{as_json(told)}</script>{live}'
    )
