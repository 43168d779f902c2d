"""The trace: an append-only list of records that a file can hold."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsdemo.trace import (
    SCHEMA_VERSION,
    Kind,
    Record,
    Trace,
    TraceError,
    load_traces,
    save_traces,
    traces,
)


class HoldsTrace:
    """Like a cluster, or one run of a comparison."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace


def a_run(broker: str = "pubsub") -> Trace:
    """A short run in which every field of a record is used."""
    trace = Trace(broker=broker, servers=["A", "B"])
    trace.append("step", "scenario", caption="P2 says “hide” – 隠れろ\n")
    trace.append("send", "P2", "A", "P2-1", body='<b>"\\\u2028\x00😀')
    trace.append("publish", "A", "redis", "P2-1", receivers=2)
    trace.append("settle", "scenario")
    return trace


def saved(*runs: Trace) -> list[bytes]:
    """The lines of the file in which these runs are saved."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.jsonl")
        save_traces(path, runs)
        return path.read_bytes().splitlines(keepends=True)


def written(folder: Path, content: bytes) -> Path:
    """A file with this content."""
    path = folder / "run.jsonl"
    path.write_bytes(content)
    return path


def failure(folder: Path, content: bytes) -> str:
    """What `load` says is wrong with a file of this content."""
    with pytest.raises(TraceError) as raised:
        Trace.load(written(folder, content))
    return str(raised.value)


# In memory


def test_records_are_numbered_in_order() -> None:
    """A record carries its index, a time that never runs back, and what it was given."""
    trace = a_run()
    assert [record.n for record in trace] == list(range(len(trace))) == [0, 1, 2, 3]
    times = [record.t for record in trace]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 60
    published = trace[2]
    assert (published.kind, published.at, published.peer) == ("publish", "A", "redis")
    assert (published.event, published.data) == ("P2-1", {"receivers": 2})


def test_records_without_data_share_nothing() -> None:
    """A record that has no details has a dictionary of its own."""
    first, second = (Record(n, 0.0, "settle", "scenario") for n in range(2))
    first.data["x"] = 1
    assert second.data == {}
    assert (second.peer, second.event) == ("", "")


def test_details_may_have_any_name() -> None:
    """Details called `kind`, `at`, `peer` or `event` do not collide with the fields."""
    trace = Trace()
    trace.append("fault", "A", "P1", kind="k", at="a", peer="p", event="e")
    assert trace[0].at == "A"
    assert trace[0].data == {"kind": "k", "at": "a", "peer": "p", "event": "e"}


def test_select_matches_every_field_given() -> None:
    """`select` gives the records that match each condition, in order."""
    trace = a_run()
    trace.append("hear", "P1", "B", "P2-1")
    trace.append("hear", "P2", "A", "P2-1")
    assert trace.select() == list(trace)
    assert [r.n for r in trace.select("hear")] == [4, 5]
    assert [r.n for r in trace.select("hear", "send")] == [1, 4, 5]
    assert [r.n for r in trace.select(at="P2")] == [1, 5]
    assert [r.n for r in trace.select(peer="A")] == [1, 5]
    assert [r.n for r in trace.select(event="P2-1")] == [1, 2, 4, 5]
    assert [r.n for r in trace.select("hear", at="P2", peer="A", event="P2-1")] == [5]
    assert [r.n for r in trace.select(peer="")] == [0, 3]
    assert trace.select("hear", peer="") == []
    assert trace.select("hear", at="P9") == []


def test_select_of_an_unknown_kind_lists_what_there_is() -> None:
    """A kind that there is not is an error that names it and every kind there is."""
    with pytest.raises(ValueError, match="unknown kind shout") as raised:
        Trace().select("hear", "shout")  # type: ignore[arg-type]
    for kind in get_args(Kind):
        assert kind in str(raised.value)


def test_watchers_are_told_of_each_record_from_then_on() -> None:
    """A watcher gets each new record once it is in the trace, and none after it has gone."""
    trace = Trace()
    trace.append("settle", "scenario")
    seen: list[tuple[Record, int]] = []
    others: list[Record] = []
    unwatch = trace.watch(lambda record: seen.append((record, len(trace))))
    trace.watch(others.append)
    trace.append("connect", "P1", "balancer")
    unwatch()
    unwatch()
    trace.append("disconnect", "P1", "A")
    assert seen == [(trace[1], 2)]
    assert others == [trace[1], trace[2]]


def test_each_watch_is_ended_by_its_own_result() -> None:
    """Ending one watch twice does not end another of the same function."""
    trace = Trace()
    seen: list[Record] = []
    unwatch = trace.watch(seen.append)
    trace.watch(seen.append)
    unwatch()
    unwatch()
    trace.append("settle", "scenario")
    assert seen == [trace[0]]


def test_a_watcher_may_end_its_watch_when_called() -> None:
    """A watcher that unwatches itself keeps no record from the others."""
    trace = Trace()
    seen: list[Record] = []

    def once(record: Record) -> None:
        seen.append(record)
        unwatch()

    unwatch = trace.watch(once)
    trace.watch(seen.append)
    trace.append("settle", "scenario")
    trace.append("settle", "scenario")
    assert [record.n for record in seen] == [0, 0, 1]


def test_nothing_is_recorded_after_the_end() -> None:
    """What parts do while they shut down is neither recorded nor shown to watchers."""
    trace = a_run()
    seen: list[Record] = []
    trace.watch(seen.append)
    assert not trace.ended
    trace.end()
    trace.append("disconnect", "P1", "A")
    assert trace.ended
    assert len(trace) == 4
    assert seen == []


def test_repr_says_what_the_run_was() -> None:
    """The repr names the run and the number of its records."""
    assert repr(a_run()) == "Trace(broker='pubsub', servers=['A', 'B']): 4 records"


# In a file


def test_a_saved_trace_comes_back_equal(tmp_path: Path) -> None:
    """`load` gives back each record and `about`, and a run that is over."""
    trace = a_run()
    trace.save(tmp_path / "run.jsonl")
    loaded = Trace.load(tmp_path / "run.jsonl")
    assert list(loaded) == list(trace)
    assert loaded.about == trace.about
    assert loaded.ended
    loaded.append("settle", "scenario")
    assert len(loaded) == len(trace)


def test_a_file_holds_a_header_and_one_object_a_line(tmp_path: Path) -> None:
    """The first line carries the schema version; each further line is one record, in UTF-8."""
    a_run().save(str(tmp_path / "run.jsonl"))
    content = (tmp_path / "run.jsonl").read_text(encoding="utf-8")
    header, *records = [json.loads(line) for line in content.removesuffix("\n").split("\n")]
    assert header["wsdemo_trace"] == SCHEMA_VERSION
    assert header["about"] == {"broker": "pubsub", "servers": ["A", "B"]}
    assert [record["kind"] for record in records] == ["step", "send", "publish", "settle"]
    assert content.endswith("\n")
    assert "隠れろ" in content


def test_saving_again_replaces_the_file(tmp_path: Path) -> None:
    """A longer run that was there before leaves nothing behind."""
    a_run().save(tmp_path / "run.jsonl")
    Trace().save(tmp_path / "run.jsonl")
    assert list(Trace.load(tmp_path / "run.jsonl")) == []


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Not lone surrogates: nothing can write those.
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=6,
)
words = st.text(st.characters(codec="utf-8"), max_size=8)
details = st.dictionaries(words, json_values, max_size=3)


@given(
    about=details,
    records=st.lists(st.tuples(st.sampled_from(get_args(Kind)), words, words, words, details)),
)
def test_any_trace_comes_back_equal(
    about: dict[str, Any], records: list[tuple[Kind, str, str, str, dict[str, Any]]]
) -> None:
    """Whatever names and details the records carry, they come back as they were."""
    trace = Trace()
    trace.about.update(about)
    for kind, at, peer, event, data in records:
        trace.append(kind, at, peer, event)
        trace[-1].data.update(data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.jsonl")
        trace.save(path)
        loaded = Trace.load(path)
    assert list(loaded) == list(trace)
    assert loaded.about == trace.about


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    """A path that leads nowhere is the file system's error, not the trace's."""
    with pytest.raises(FileNotFoundError):
        Trace.load(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"hello\n",
        b"{}\n",
        b"[]\n",
        b'{"about":{}}\n',
        b'{"wsdemo_trace":"1","about":{}}\n',
        b'{"wsdemo_trace":1,"about":[]}\n',
        b'{"nbformat":4,"cells":[]}\n',
        b"\x89PNG\r\n\x1a\n\x00",
        b'{"wsdemo_trace":1,"about":{"\xff":1}}\n',
        b'{"wsdemo_trace":1,"about":{"x":' + b"[" * 100_000 + b"\n",
        b'{"wsdemo_trace":1' + b"0" * 5_000 + b',"about":{}}\n',
        saved(a_run())[1],
    ],
    ids=lambda content: ascii(content[:8]),
)
def test_what_is_not_a_trace_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file of another kind is an error that names it and says what a trace would be."""
    message = failure(tmp_path, content)
    assert "run.jsonl" in message
    assert "trace" in message


@pytest.mark.parametrize("rest", [b',"about":{}', b',"about":{},"novelty":[1]', b""])
def test_a_later_version_is_refused(tmp_path: Path, rest: bytes) -> None:
    """A file that a later wsdemo wrote, whatever its header holds, says what to do."""
    message = failure(tmp_path, b'{"wsdemo_trace":%d%s}\n' % (SCHEMA_VERSION + 1, rest))
    assert "run.jsonl" in message
    assert "written by a later wsdemo" in message
    assert "upgrade wsdemo" in message


def test_a_trace_may_be_about_anything(tmp_path: Path) -> None:
    """`about` may hold any name, `self` too."""
    trace = Trace()
    trace.about.update({"self": 1, "path": 2})
    trace.save(tmp_path / "run.jsonl")
    assert Trace.load(tmp_path / "run.jsonl").about == {"self": 1, "path": 2}


def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    """Of all the beginnings of a file, only the whole of it is a trace."""
    a_run().save(tmp_path / "whole.jsonl")
    content = (tmp_path / "whole.jsonl").read_bytes()
    loaded = []
    for size in range(len(content) + 1):
        with suppress(TraceError):
            Trace.load(written(tmp_path, content[:size]))
            loaded.append(size)
    assert loaded == [len(content)]


def test_a_file_cut_in_a_line_says_so(tmp_path: Path) -> None:
    """A file that ends in the middle of a line names the line."""
    message = failure(tmp_path, b"".join(saved(a_run())[:3])[:-9])
    assert "cut short" in message
    assert "line 3" in message


RECORD = b'{"n":1,"t":0.5,"kind":"hear","at":"P1","peer":"A","event":"P2-1","data":{}}\n'
BAD_LINES = {
    "text": b"garbage\n",
    "empty": b"\n",
    "null": b"null\n",
    "unknown kind": RECORD.replace(b'"hear"', b'"shout"'),
    "no place": RECORD.replace(b'"at":"P1",', b""),
    "number as text": RECORD.replace(b'"n":1', b'"n":"1"'),
    "no number": RECORD.replace(b"0.5", b"NaN"),
    "bytes that are not UTF-8": RECORD.replace(b"P2-1", b"\xff"),
    "a lone surrogate": RECORD.replace(b"P2-1", b"\\ud800"),
    "deep nesting": RECORD.replace(b'"data":{}', b'"data":{"x":' + b"[" * 100_000),
    "deep nesting where nobody looks": RECORD.replace(b'"data":{}', b'"x":' + b"[" * 100_000),
    "repeated": RECORD.replace(b'"n":1', b'"n":0'),
    "one too far": RECORD.replace(b'"n":1', b'"n":2'),
    "before the first": RECORD.replace(b'"n":1', b'"n":-1'),
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: bytes) -> None:
    """A line that is no record, or not the next one, is an error that names file and line."""
    lines = saved(a_run())
    lines[2] = line
    assert "run.jsonl, line 3" in failure(tmp_path, b"".join(lines))
    lines[2] = RECORD
    assert Trace.load(written(tmp_path, b"".join(lines)))[1].kind == "hear"


def test_a_line_lost_or_doubled_is_refused(tmp_path: Path) -> None:
    """Records that are not in their order, without a gap, are named by what stands there."""
    lines = saved(a_run())
    assert "line 3: record 2 " in failure(tmp_path, b"".join(lines[:2] + lines[3:]))
    assert "line 4: record 1 " in failure(tmp_path, b"".join([*lines[:3], *lines[2:]]))
    assert "line 2: record 1 " in failure(tmp_path, b"".join([lines[0], *lines[:0:-1][-2:]]))


@given(content=st.binary() | st.binary().map(lambda end: b"".join(saved(a_run())) + end))
def test_any_file_is_a_trace_or_refused(content: bytes) -> None:
    """Whatever a file holds, reading it gives a trace or a `TraceError`."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            trace = Trace.load(written(Path(folder), content))
        except TraceError:
            return
    assert [record.n for record in trace] == list(range(len(trace)))


WHOLE = b"".join(saved(a_run()))


@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_damaged_file_is_a_trace_or_refused(at: float, byte: int) -> None:
    """One byte changed anywhere gives a trace or a `TraceError`, and no other error."""
    content = bytearray(WHOLE)
    content[int(at * len(WHOLE))] = byte
    with tempfile.TemporaryDirectory() as folder, suppress(TraceError):
        trace = Trace.load(written(Path(folder), bytes(content)))
        assert [record.n for record in trace] == list(range(len(trace)))


# Several runs in one file


def test_several_traces_share_a_file(tmp_path: Path) -> None:
    """The runs of a comparison come back by the name of their broker, in their order."""
    pubsub, none = a_run(), Trace(broker="none")
    none.append("settle", "scenario")
    save_traces(tmp_path / "runs.jsonl", [pubsub, none])
    loaded = load_traces(tmp_path / "runs.jsonl")
    assert list(loaded) == ["pubsub", "none"]
    assert [list(trace) for trace in loaded.values()] == [list(pubsub), list(none)]
    assert [trace.about for trace in loaded.values()] == [pubsub.about, none.about]
    assert all(trace.ended for trace in loaded.values())


def test_one_trace_may_be_read_as_several(tmp_path: Path) -> None:
    """What `save` wrote is a file of one run."""
    trace = a_run()
    trace.save(tmp_path / "run.jsonl")
    assert {name: list(one) for name, one in load_traces(tmp_path / "run.jsonl").items()} == {
        "pubsub": list(trace)
    }


def test_several_traces_are_not_read_as_one(tmp_path: Path) -> None:
    """Reading one run from a file of two says how many there are and what reads them."""
    save_traces(tmp_path / "run.jsonl", [a_run(), Trace(broker="none")])
    with pytest.raises(TraceError, match=r"holds 2 traces.*load_traces"):
        Trace.load(tmp_path / "run.jsonl")


def test_two_traces_of_one_name_do_not_get_lost(tmp_path: Path) -> None:
    """Two runs of one broker in a file are refused, as only one could come back."""
    path = tmp_path / "run.jsonl"
    with pytest.raises(ValueError, match="pubsub"):  # noqa: PT012 - either may say so
        save_traces(path, [a_run(), a_run()])
        load_traces(path)


def test_the_second_trace_of_a_file_is_checked_too(tmp_path: Path) -> None:
    """A bad line in a second run, its header too, is named by its number in the file."""
    lines = saved(a_run(), Trace(broker="none"), a_run("stream"))
    assert len(lines) == 5 + 1 + 5
    for number in (6, 9):
        damaged = [*lines[: number - 1], lines[number - 1][:-2] + b"\n", *lines[number:]]
        assert f"line {number}" in failure(tmp_path, b"".join(damaged))


def test_several_traces_cut_short_are_refused(tmp_path: Path) -> None:
    """A file that has lost its last lines, or a run in it that has, is no longer taken."""
    lines = saved(a_run(), Trace(broker="none"))
    assert "cut short" in failure(tmp_path, b"".join(lines)[:-1])
    with pytest.raises(TraceError):
        load_traces(written(tmp_path, b"".join(lines[:4] + lines[5:])))


# What views can be given


def test_a_trace_is_a_source() -> None:
    """A trace goes by the name of its broker, or as "run" where it names none."""
    trace, nameless = a_run(), Trace()
    assert traces(trace) == {"pubsub": trace}
    assert traces(nameless) == {"run": nameless}


def test_an_empty_trace_is_a_source() -> None:
    """A trace without records is still a trace."""
    trace = Trace(broker="none")
    assert traces(HoldsTrace(trace)) == {"none": trace}


def test_what_has_a_trace_is_a_source() -> None:
    """A cluster, or one run, goes by the name of its trace's broker."""
    trace = a_run()
    assert traces(HoldsTrace(trace)) == {"pubsub": trace}


def test_a_mapping_of_runs_is_a_source() -> None:
    """The result of a comparison keeps its names and its order."""
    first, second = a_run(), a_run()
    found = traces({"z": HoldsTrace(first), "a": HoldsTrace(second)})
    assert list(found) == ["z", "a"]
    assert found["z"] is first
    assert found["a"] is second
    assert traces({}) == {}


class Matrix:
    """Has a `trace` too, as arrays do, but not one of ours."""

    def trace(self) -> float:
        return 0.0


@pytest.mark.parametrize(
    "source",
    [None, 5, "run.jsonl", [a_run()], {"none": 5}, {"none": None}, Matrix(), {"none": Matrix()}],
    ids=["None", "int", "path", "list", "of int", "of None", "matrix", "of matrix"],
)
def test_anything_else_is_not_a_source(source: Any) -> None:
    """What has no trace is a `TypeError` that says what to give instead."""
    with pytest.raises(TypeError, match="give a cluster, its trace"):
        traces(source)
