"""The saved page: one file that no run and no name can turn into another."""

from __future__ import annotations

import base64
import errno
import hashlib
import html
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from wsdemo import Stage, Trace, compare, open_cluster, page, scenarios

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "</title><script>alert(1)</script>",
    "\u2028\u2029\x00\r\n",
    "\u202eabc\u200f\u2066\ufeff",
    "{{}} %s {told} \\u003c \"quoted\" 'too' &lt;",
    "\ud800 half a character",
    "x" * 10_000,
]


class Parsed(HTMLParser):
    """The elements of a page as a browser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.texts.setdefault(tag, []).append("")
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data

    @property
    def told(self) -> Any:
        """What the page's module reads."""
        return json.loads(self.texts["script"][-1])


def saved(stage: Stage, folder: Path) -> str:
    """The page of a stage, which is closed."""
    path = folder / "out.html"
    assert stage.save_html(path) is None  # type: ignore[func-returns-value]
    stage.close()
    return path.read_bytes().decode()


def hostile_trace() -> Trace:
    """A trace in which everything that a page shows of it is hostile."""
    trace = Trace(broker=HOSTILE[2], servers=HOSTILE, game=HOSTILE[0])
    for text in HOSTILE:
        trace.append("step", "scenario", caption=text, notes=text)
        trace.append("join", text, text)
        trace.append("send", text, text, text, body=text, frame=text)
        trace.append("receive", text, text, text, body=text, frame=text)
    return trace


@pytest.fixture
async def comparison(tmp_path: Path) -> str:
    """The page of the scenario that the course begins with."""
    return saved(Stage(await compare(scenarios.p1_moves_to_b)), tmp_path)


def test_a_page_asks_nothing_of_any_network(comparison: str) -> None:
    """No address stands in it but the names of XML's own vocabularies, and it includes no file."""
    assert not re.findall(r"\w+://(?!www\.w3\.org/)", comparison.replace("http-equiv", ""))
    assert not re.search(r"\b(?:src|href)\s*=\s*[\"']|@import|url\(", comparison)
    assert "data:" in comparison  # in its policy


def test_its_policy_lets_only_its_own_module_and_style_through(comparison: str) -> None:
    """The hashes in the policy are those of what stands in the page, and nothing else may load."""
    parsed = Parsed(comparison)
    (policy,) = (
        attributes["content"]
        for tag, attributes in parsed.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )

    def hashed(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    (style,), module = parsed.texts["style"], parsed.texts["script"][0]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{hashed(module)}'; "
        f"style-src 'sha256-{hashed(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert not any("style" in attributes for _, attributes in parsed.elements)
    assert not any(
        name.startswith("on") for _, attributes in parsed.elements for name in attributes
    )


def test_it_is_the_widgets_own_module_and_style(comparison: str) -> None:
    """What the page runs is what the widget runs, to the letter, and then `open()`."""
    parsed = Parsed(comparison)
    assert parsed.texts["script"][0] == page.module() + "\nopen();\n"
    assert parsed.texts["style"][0].startswith(page.style())


def test_what_is_told_comes_last(comparison: str) -> None:
    """A page that is cut short has its module, if anything, and a sentence until that runs."""
    parsed = Parsed(comparison)
    assert [tag for tag, _ in parsed.elements if tag in ("div", "script")] == [
        *("div", "script", "script"),
    ]
    assert parsed.elements[-2:] == [
        ("script", {"type": "module"}),
        ("script", {"type": "application/json", "id": "told"}),
    ]
    assert "incomplete" in parsed.texts["p"][0]
    assert comparison.index("incomplete") < comparison.index('<script type="module">')


def test_it_says_what_it_is_a_page_of(comparison: str) -> None:
    """Language, letters, width and title are there before anything runs; lines end in LF alone."""
    parsed = Parsed(comparison)
    assert comparison.startswith("<!doctype html>\n")
    assert parsed.elements[0] == ("html", {"lang": "en"})
    assert ("meta", {"charset": "utf-8"}) in parsed.elements
    assert any(attributes.get("name") == "viewport" for _, attributes in parsed.elements)
    assert parsed.texts["title"] == ["Without a broker · With Redis Pub/Sub – wsdemo"]
    assert "\r" not in comparison


async def test_it_tells_what_the_widget_tells(tmp_path: Path) -> None:
    """A page holds the runs, the key, the problem, and what its stage is to open with."""
    stage = Stage(await compare(scenarios.p1_moves_to_b), look="P2-2", minutes=5)
    told = Parsed(saved(stage, tmp_path)).told
    more = {"problem": "", "look": "P2-2", "minutes": 5}
    assert told == {"runs": stage.runs, "key": stage.key, **more}


def test_without_its_data_it_is_small(comparison: str) -> None:
    """A page can be sent by mail: it is under 150 kB, but for what is told of the runs."""
    assert len(comparison.encode()) - len(Parsed(comparison).texts["script"][-1]) < 150_000


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    """Whatever names, bodies and captions hold, the page has the elements it was meant to have."""
    text = saved(Stage(hostile_trace()), tmp_path)
    harmless = saved(Stage(Trace(broker="x")), tmp_path)
    assert Parsed(text).elements[3:] == Parsed(harmless).elements[3:]
    assert text.count("<script") == harmless.count("<script")
    assert text.count("<!--") == harmless.count("<!--") == 0
    assert Parsed(text).texts["script"][0] == Parsed(harmless).texts["script"][0]
    (run,) = Parsed(text).told["runs"]
    said = [item for item in run["items"] if item["type"] == "said"]
    assert [item["body"] for item in said] == HOSTILE
    assert said[-1]["frame"].endswith("(the first 2,000 of 10,000 characters)")
    assert text.split('id="told">')[1].isascii()
    assert html.escape("</title><script>alert(1)</script>") in text


async def test_a_live_stage_is_saved_as_far_as_it_has_come(tmp_path: Path) -> None:
    """What has happened so far can be replayed, and what happens later is not in the page."""
    async with open_cluster(broker="none") as cluster:
        await cluster.join("P1", server="A")
        stage = Stage(cluster)
        (p1,) = cluster.players.values()
        await p1.send("jump")
        await cluster.settle()
        path = tmp_path / "live.html"
        stage.save_html(path)
        await p1.send("later")
        await cluster.settle()
        stage.close()
    (run,) = Parsed(path.read_text("utf-8")).told["runs"]
    assert [item["body"] for item in run["items"] if item["type"] == "said"] == ["jump"]


def test_a_stage_without_a_picture_is_saved_with_its_sentence(tmp_path: Path) -> None:
    """The page of a stage that can show nothing says why."""
    text = saved(Stage({}), tmp_path)
    assert "no run to show" in Parsed(text).told["problem"]
    assert Parsed(text).texts["title"] == ["No run – wsdemo"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """The page is written where it was told to, and nowhere else."""
    path = tmp_path / "none" / "run.html"
    with pytest.raises(FileNotFoundError) as error:
        Stage({}).save_html(path)
    assert str(error.value) == f"[Errno {errno.ENOENT}] {os.strerror(errno.ENOENT)}: {str(path)!r}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", [PermissionError(errno.EACCES, "no"), KeyboardInterrupt()])
def test_a_page_that_is_not_finished_leaves_the_one_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    """Whether its file cannot be moved into place, or the cell is interrupted before it is."""

    def fail(source: Path, target: Path) -> None:
        raise failure

    path = tmp_path / "run.html"
    path.write_text("as it was", encoding="utf-8")
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(type(failure)):
        Stage({}).save_html(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text(encoding="utf-8") == "as it was"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_an_error() -> None:
    """What cannot be written is not passed over, and a device is left as it is."""
    with pytest.raises(OSError, match="No space left"):
        Stage({}).save_html("/dev/full")
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("end", ["'</script>'", "`</SCRIPT`", "// <!-- <script>"])
def test_a_module_that_would_end_the_page_is_refused(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that holds the end of its own element is not put into a page."""
    monkeypatch.setattr(page, "module", lambda: f"export const open = () => {end};")
    with pytest.raises(ValueError, match="the script cannot stand in a page"):
        page.page({}, "Title")


def test_each_file_of_the_module_imports_from_those_before_it() -> None:
    """As they stand one after the other in the module, and no file is left out."""
    files = [f"{name}.js" for name in page._MODULES]
    assert sorted(files) == sorted(path.name for path in page._STATIC.glob("*.js"))
    for n, file in enumerate(files):
        imported = re.findall(r'^import .* from "\./(.*)";$', page._read(file), re.M)
        assert set(imported) <= set(files[:n])


def test_the_module_is_all_of_the_stage_in_one() -> None:
    """It imports nothing, has no comments, exports what a page needs, and is under 69 kB.

    It was under 64 kB before it found room for its boxes on every screen.
    """
    text = page.module()
    assert not re.search(r"^import ", text, re.M)
    assert "/**" not in text
    assert " // " not in text
    assert re.findall(r"\bexport (?:const|function) (\w+)", text) == ["mount", "open"]
    assert text.rstrip().endswith("export default{render};")
    assert len(text.encode()) < 69_000
