"""Predictions: marked in a page or in code, and held against the trace of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ipywidgets import Button, Checkbox, Label, RadioButtons

from tests.test_notebook_cell import Notebook, started
from wsdemo import compare, open_cluster, scenarios
from wsdemo.compare import Run
from wsdemo.prediction import Choice, Marks, predict

WORDS = ["jump", "duck", "hide", "fire"]


@pytest.fixture
async def split() -> Run:
    """A run in which P1 misses “hide” and “fire”."""
    return (await compare(scenarios.p1_moves_to_b, ["none"]))["none"]


def within(widget: Any) -> Iterator[Any]:
    """A widget, and all that is in it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from within(child)


def parts(asked: Marks | Choice) -> list[Any]:
    """What a page shows of a question, and all that is in it."""
    return list(within(asked.widget))


def boxes(asked: Marks) -> dict[str, Any]:
    return {each.description: each for each in parts(asked) if isinstance(each, Checkbox)}


def button(asked: Any) -> Button:
    (found,) = [each for each in parts(asked) if isinstance(each, Button)]
    return found


def state(asked: Marks | Choice) -> str:
    """The line beneath the answers."""
    return str([each.value for each in parts(asked) if isinstance(each, Label)][-1])


# Marks


def test_there_is_a_box_for_each_event_and_one_for_nothing() -> None:
    """They say their words as text, and none is checked; the state is said beneath them."""
    asked = predict("P1", among=WORDS)
    assert list(boxes(asked)) == [*WORDS, "nothing"]
    assert not any(box.value or box.description_allow_html for box in boxes(asked).values())
    assert state(asked) == "No prediction yet."
    assert repr(asked) == (
        "Which of these will P1 miss? jump, duck, hide, fire, nothing\nNo prediction yet."
    )
    shown = asked._repr_mimebundle_()
    assert shown["text/plain"] == repr(asked)
    assert asked.widget.model_id in str(shown["application/vnd.jupyter.widget-view+json"])


def test_what_is_marked_is_said() -> None:
    """A word and “nothing” exclude each other; without a mark there is no prediction."""
    asked = predict("P1", among=WORDS)
    boxes(asked)["fire"].value = True
    boxes(asked)["hide"].value = True
    assert state(asked) == "You have marked: hide, fire."
    boxes(asked)["nothing"].value = True
    assert (state(asked), asked.marked) == ("You have marked: nothing.", [])
    boxes(asked)["jump"].value = True
    assert (state(asked), asked.marked) == ("You have marked: jump.", ["jump"])
    boxes(asked)["jump"].value = False
    assert (state(asked), asked.marked) == ("No prediction yet.", None)


@pytest.mark.parametrize(
    ("misses", "marked"),
    [("fire", ["fire"]), (["fire", "hide"], ["hide", "fire"]), ([], []), (None, None)],
)
def test_code_can_answer(misses: Any, marked: list[str] | None) -> None:
    """`misses` marks the same boxes; an empty list is “nothing”."""
    asked = predict("P1", among=WORDS, misses=misses)
    assert asked.marked == marked
    assert boxes(asked)["nothing"].value is (marked == [])
    assert predict("P1", misses=misses).marked == (
        list(misses) if isinstance(misses, list) else marked
    )


def test_a_single_word_is_not_taken_for_its_letters() -> None:
    """Neither where one is marked nor where one is chosen."""
    assert repr(predict("P1", among="jump")).startswith(
        "Which of these will P1 miss? jump, nothing"
    )
    assert predict("How many?", between="one", answer="one").chosen == "one"


def test_an_answer_that_is_none_is_refused() -> None:
    """A word that is not among those asked about, or an outcome that is not there to choose."""
    with pytest.raises(ValueError, match="'jmp' is none of 'jump', 'duck'"):
        predict("P1", among=["jump", "duck"], misses=["jmp"])
    with pytest.raises(ValueError, match="'4' is none of '1', '2'"):
        predict("How many?", between=["1", "2"], answer="4")
    with pytest.raises(ValueError, match="'3' is none of '1', '2'"):
        predict("How many?", between=["1", "2"], answer="1").compare(3)
    with pytest.raises(ValueError, match="give the outcomes to choose between"):
        predict("How many?", between=[], answer="1")
    with pytest.raises(TypeError, match="`answer` answers `between`"):
        predict("P1", among=WORDS, answer="jump")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="either with `among` and `misses`, or"):
        predict("P1", misses=["jump"], between=["1"])  # type: ignore[call-overload]


def test_numbers_are_words_and_nothing_is_a_mark() -> None:
    """What a page shows is what code may say."""
    assert predict("How many?", between=[1, 2], answer=2).chosen == "2"
    assert predict("P1", among=[1, 2], misses=[2]).marked == ["2"]
    assert predict("P1", among=WORDS, misses="nothing").marked == []


async def test_nobody_there_hears_the_same_each_time(
    split: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an answer it says what happened and asks for one, and gives nothing to show."""
    for _ in range(2):
        assert predict("P1", among=WORDS).compare(split) is None
        assert capsys.readouterr().out == (
            "Without a broker, P1 missed “hide” and “fire”.\n"
            "No prediction yet. Mark above what you would have expected, "
            "and press “Compare” there.\n"
        )


async def test_each_mark_is_judged_by_the_trace(
    split: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """For each word what was said and what it was; the stage opens at the first that was wrong."""
    asked = predict("P1", among=WORDS, misses=["duck", "fire"])
    stage = asked.compare(await again(split))
    assert capsys.readouterr().out == (
        "✓ jump: you said heard; it was heard\n"
        "✗ duck: you said missed; it was heard\n"
        "✗ hide: you said heard; it was missed: no broker between servers\n"
        "✓ fire: you said missed; it was missed: no broker between servers\n"
        "2 of 4 right\n"
    )
    assert stage is not None
    assert stage.look == "P3-1"
    stage.close()
    assert asked.compare(split.ledger) is not None


async def again(run: Run) -> Run:
    """The same, once more: later than whatever has been predicted by now."""
    return (await compare(scenarios.p1_moves_to_b, [run.broker]))[run.broker]


async def test_after_the_run_marks_are_judged_where_they_are_made(split: Run) -> None:
    """When its button is pressed: a verdict on the first mark would tell which to make next."""
    asked = predict("P1", among=WORDS)
    assert button(asked).layout.display == "none"
    asked.compare(split)
    assert button(asked).layout.display is None
    assert state(asked) == "No prediction yet."
    button(asked).click()
    assert state(asked) == "No prediction yet."
    boxes(asked)["hide"].value = True
    assert state(asked) == "You have marked: hide."
    button(asked).click()
    assert state(asked) == "You have marked: hide. P1 missed “hide” and “fire”: 3 of 4 right."
    boxes(asked)["fire"].value = True
    assert state(asked) == "You have marked: hide, fire."
    button(asked).click()
    assert state(asked).endswith("4 of 4 right.")
    boxes(asked)["nothing"].value = True
    button(asked).click()
    assert state(asked) == "You have marked: nothing. P1 missed “hide” and “fire”: 2 of 4 right."

    choice = predict("How many?", between=["1", "2"])
    choice.compare(2)
    radios = [each for each in parts(choice) if isinstance(each, RadioButtons)]
    for radio, verdict in zip(radios, ("✗", "✓"), strict=True):
        radio.value = radio.options[0]
        assert state(choice) == f"You have chosen “{radio.value}”."
        button(choice).click()
        assert state(choice) == f"You have chosen “{radio.value}”. {verdict} It was “2”."


async def test_a_prediction_made_before_the_run_is_judged_by_it(split: Run) -> None:
    """Nobody need press anything then."""
    asked = predict("P1", among=WORDS, misses=["hide"])
    assert state(asked) == "You have marked: hide."
    stage = asked.compare(split)
    assert state(asked) == "You have marked: hide. P1 missed “hide” and “fire”: 3 of 4 right."
    assert stage is not None
    stage.close()


async def test_all_right_shows_nothing_more(split: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever was right has no need of a stage."""
    asked = predict("P1", among=WORDS, misses=["hide", "fire"])
    assert asked.compare(await again(split)) is None
    assert capsys.readouterr().out.endswith("\n4 of 4 right\n")


async def test_a_mark_that_came_after_the_run_counts(
    split: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is judged like any other, and a hint says that it came late."""
    predict("P1", among=WORDS, misses=["hide", "fire"]).compare(split)
    assert capsys.readouterr().out.endswith(
        "4 of 4 right\n(You said so after the run. The next time, say it before.)\n"
    )


async def test_what_is_not_certain_is_neither_right_nor_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What has not been said, or may be heard yet, counts for nothing; nor does a wrong name."""
    asked = predict("P1", among=["jump", "hide", "seek"], misses=["seek"])
    async with open_cluster(broker="stream") as cluster:
        p1, p2 = await cluster.join("P1", "P2", server="A")
        assert asked.compare(cluster) is None
        assert capsys.readouterr().out == "With Redis Streams, P1 could hear none of these yet.\n"
        await p2.send("jump")
        await cluster.settle()
        await p1.disconnect()
        await p2.send("hide")
        await cluster.settle()
        assert asked.compare(cluster) is None
        stranger = predict("P9", among=["jump"], misses=[])
        assert stranger.compare(cluster) is None
        assert predict("P1", among=["jump", "hide"]).compare(cluster) is None
    told = capsys.readouterr().out.splitlines()
    assert told[:4] == [
        "✓ jump: you said heard; it was heard",
        "– hide: you said heard; it was not heard yet",
        "– seek: you said missed; it was not said to them in this run",
        "1 of 1 right",
    ]
    assert told[4] == "With Redis Streams, P9 could hear none of these yet."
    assert told[5] == "With Redis Streams, P1 missed nothing so far."


async def test_a_run_in_which_nothing_is_certain_judges_nothing(split: Run) -> None:
    """Nor is it judged by the run before: there is no button any more."""
    asked = predict("P1", among=WORDS, misses=["duck"])
    asked.compare(split)
    async with open_cluster(broker="stream") as cluster:
        await cluster.join("P1")
        asked.compare(cluster)
    assert button(asked).layout.display == "none"
    assert state(asked) == "You have marked: duck."


async def test_several_runs_are_not_one(split: Run) -> None:
    """Whoever gives all the runs of a comparison is told to name one."""
    with pytest.raises(TypeError, match="name one of the runs"):
        predict("P1", misses=[]).compare({"none": split})  # type: ignore[arg-type]


# Choices


async def test_an_outcome_is_chosen_by_a_button(
    split: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of them, none at first; then it is said which it was, and which was chosen."""
    asked = predict("How many?", between=["1", "2", "3"])
    buttons = [each for each in parts(asked) if isinstance(each, RadioButtons)]
    assert [(each.options, each.value) for each in buttons] == [((n,), None) for n in "123"]
    assert repr(asked) == "How many? 1, 2, 3\nNo prediction yet."
    assert asked.compare(2) is None
    assert capsys.readouterr().out == (
        "It was “2”.\n"
        "No prediction yet. Choose above what you would have expected, "
        "and press “Compare” there.\n"
    )
    buttons[2].value = "3"
    buttons[0].value = "1"
    assert [each.value for each in buttons] == ["1", None, None]
    assert state(asked) == "You have chosen “1”."
    assert asked.compare(2) is None
    assert state(asked) == "You have chosen “1”. ✗ It was “2”."
    assert asked.compare(1, await again(split), look="hide") is None
    assert capsys.readouterr().out == "✗ You said “1”; it was “2”.\n✓ You said “1”; it was “1”.\n"


async def test_a_wrong_choice_is_shown(split: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The stage opens at the event that shows what it was."""
    asked = predict("Does P1 hear “hide”?", between=["yes", "no"], answer="yes")
    stage = asked.compare("no", split, look="hide")
    assert stage is not None
    assert stage.look == "P2-2"
    stage.close()
    assert "(You said so after the run." in capsys.readouterr().out


# In a kernel


@pytest.fixture(scope="module")
def notebook() -> Iterator[Notebook]:
    with started() as notebook:
        yield notebook


@pytest.mark.parametrize("where", ["main thread", "subshell"])
def test_a_mark_comes_from_the_page(notebook: Notebook, where: str) -> None:
    """A message of a page's marks a box, on whichever thread the kernel hears it."""
    shown = notebook.run(
        "from ipywidgets import Widget; from wsdemo.teach import predict\n"
        'guess = predict("P1", among=["jump", "hide"])\nguess'
    )
    assert shown == "Which of these will P1 miss? jump, hide, nothing\nNo prediction yet."
    box = notebook.run(
        '[box] = [model for model, each in Widget.get_manager_state()["state"].items()\n'
        '         if each["state"].get("description") == "hide"]\nprint(box, end="")'
    )
    press(notebook, box, subshell_of(notebook) if where == "subshell" else None)
    assert notebook.run("print(guess)").endswith("You have marked: hide.\n")
    notebook.run("Widget.close_all()")


def subshell_of(notebook: Notebook) -> str:
    """A new subshell, as newer pages ask for one for what widgets say."""
    client = notebook.client
    message = client.session.msg("create_subshell_request", {})
    client.control_channel.send(message)
    while True:
        reply = client.get_control_msg(timeout=30)
        if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
            return str(reply["content"]["subshell_id"])


def press(notebook: Notebook, box: str, subshell: str | None) -> None:
    """What a page sends when a box is checked; returns once the kernel has taken it."""
    client = notebook.client
    data = {"method": "update", "state": {"value": True}, "buffer_paths": []}
    message = client.session.msg("comm_msg", {"comm_id": box, "data": data})
    if subshell:
        message["header"]["subshell_id"] = subshell
    client.shell_channel.send(message)
    while True:
        answer: dict[str, Any] = client.get_iopub_msg(timeout=30)
        is_idle = answer["content"].get("execution_state") == "idle"
        if is_idle and answer["parent_header"].get("msg_id") == message["header"]["msg_id"]:
            return
