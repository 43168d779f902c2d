"""Predictions: what a learner expects of a run, said before it and held against it afterwards.

A question stands in the notebook as a widget. Whoever does not answer it, as Run All does not, is
told the same words each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

from ipywidgets import Button, Checkbox, HBox, Label, RadioButtons, VBox

from wsdemo.ledger import Fate, Ledger, ledger
from wsdemo.stage import Stage
from wsdemo.trace import HasTrace, Trace

__all__ = ["ASKED_TO_CHOOSE", "ASKED_TO_MARK", "Choice", "Marks", "predict"]

NOTHING_SAID = "No prediction yet."
THERE = "above what you would have expected, and press “Compare” there."
ASKED_TO_MARK = f"{NOTHING_SAID} Mark {THERE}"
ASKED_TO_CHOOSE = f"{NOTHING_SAID} Choose {THERE}"
NOTHING = "nothing"
OUTCOMES = {"heard": "heard", "twice": "heard twice", "pending": "not heard yet"}

_Run = Trace | HasTrace


class _Question:
    """A question, the widgets that answer it, and a line that says what has been answered.

    Once there was a run to compare with, there is a button for that: a verdict that came with the
    first mark would tell what to mark next.
    """

    def __init__(self, question: str, options: Sequence[str], answers: Any) -> None:
        self._question = question
        self._options = options
        self._answered = 0.0  # when it was, last, by `time.perf_counter`
        self._verdict: Callable[[], str] | None = None  # by the last run; None if it gives none
        self._state = Label(NOTHING_SAID)
        self._button = Button(description="Compare", layout={"display": "none"})
        self._button.on_click(lambda _: self._show(self._verdict))
        asked = Label(question, style={"font_weight": "bold"})
        self.widget = VBox([asked, answers, HBox([self._button, self._state])])

    @property
    def said(self) -> str:
        """What has been answered, in words; empty if nothing has."""
        raise NotImplementedError

    def _note(self, *_: object) -> None:
        """Somebody has answered, in the page, from whatever thread, or in the code."""
        self._answered = time.perf_counter()
        self._show()

    def _judge_by(self, verdict: Callable[[], str] | None) -> None:
        """From now on, an answer can be judged where it is given: nobody need run a cell again.

        None for a run by which none can.
        """
        self._verdict = verdict
        self._button.layout.display = None if verdict else "none"
        self._show(verdict)

    def _show(self, verdict: Callable[[], str] | None = None) -> None:
        judged = verdict() if verdict and self.said else ""
        self._state.value = f"{self.said or NOTHING_SAID} {judged}".rstrip()

    def _note_if_late(self, found: Ledger) -> None:
        """Say so where the answer came after the run."""
        said = found.trace.select("send", "receive")
        if said and self._answered > found.trace.began + said[-1].t:
            print("(You said so after the run. The next time, say it before.)")

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return {**self.widget._repr_mimebundle_(**options), "text/plain": repr(self)}

    def __repr__(self) -> str:
        """For where there are no widgets: what there is to answer stands in it, too."""
        options = f" {', '.join(self._options)}" if self._options else ""
        return f"{self._question}{options}\n{self.said or NOTHING_SAID}"


class Marks(_Question):
    """Which of some events a player will miss: a box to check for each, and one for “nothing”."""

    def __init__(
        self, player: str, among: Iterable[object], misses: Iterable[object] | None
    ) -> None:
        marked = [] if misses == NOTHING else _each(misses or ())
        self._player = player
        self._among = _each(among)
        _require_known(marked, self._among)
        self._boxes = {word: _box(word) for word in self._among or marked}
        self._nothing = _box(NOTHING)
        boxes = [*self._boxes.values(), self._nothing]
        super().__init__(
            f"Which of these will {player} miss?",
            [*self._boxes, NOTHING],
            HBox(boxes, layout={"flex_flow": "row wrap"}),
        )
        for box in boxes:
            box.observe(self._on_mark, "value")
        for word in marked:
            self._boxes[word].value = True
        self._nothing.value = misses is not None and not marked

    @property
    def marked(self) -> list[str] | None:
        """The words that are marked, none of them for “nothing”; None without a prediction."""
        words = [word for word, box in self._boxes.items() if box.value]
        return words if words or self._nothing.value else None

    @property
    def said(self) -> str:
        """What has been marked, in words; empty if nothing has."""
        marked = self.marked
        return "" if marked is None else f"You have marked: {', '.join(marked) or 'nothing'}."

    def compare(self, run: _Run) -> Stage | None:
        """Print which marks were right, as the run's trace has it.

        Returns a stage of the run that is opened at the first wrong one, if there is any. Without a
        prediction it says what was missed and asks for one. Raises `TypeError` for what is no run.
        """
        found = _ledger_of(run)
        fates = {word: self._fate(found, word) for word in self._among or _words(found)}
        certain = {word: each for word, each in fates.items() if each and each.outcome != "pending"}
        missed = [word for word, fate in certain.items() if fate.outcome == "missed"]
        if not certain:
            self._judge_by(None)
            print(f"{found.title}, {self._player} could hear none of these yet.")
            return None
        marked = self.marked
        self._judge_by(lambda: self._right([*certain], missed))
        if marked is None:
            so_far = "" if len(certain) == len(fates) else " so far"
            print(f"{found.title}, {self._player} missed {_listed(missed)}{so_far}.")
            print(ASKED_TO_MARK)
            return None
        wrong = {word: f for word, f in certain.items() if (word in missed) != (word in marked)}
        for word, fate in fates.items():
            said = "missed" if word in marked else "heard"
            sign = "–" if word not in certain else "✗" if word in wrong else "✓"
            print(f"{sign} {word}: you said {said}; {_outcome(fate)}")
        print(f"{len(certain) - len(wrong)} of {len(certain)} right")
        self._note_if_late(found)
        shown = [fate.event for fate in wrong.values()]
        return Stage(run, look=shown[0]) if shown else None

    def _right(self, words: Sequence[str], missed: Sequence[str]) -> str:
        marked = self.marked or []
        right = sum((word in marked) == (word in missed) for word in words)
        return f"{self._player} missed {_listed(missed)}: {right} of {len(words)} right."

    def _on_mark(self, change: Mapping[str, Any]) -> None:
        """Words and “nothing” exclude each other."""
        if change["new"]:
            is_nothing = change["owner"] is self._nothing
            for box in self._boxes.values() if is_nothing else [self._nothing]:
                box.value = False
        self._note()

    def _fate(self, found: Ledger, word: str) -> Fate | None:
        """What became of the event, for the player; of several that say it, of one that it missed.

        None if it was never said to them.
        """
        events = [event for event in found.events if found.body(event) == word]
        fates = [fate for event in events if (fate := found.fate(event, self._player))]
        fates.sort(key=lambda fate: fate.outcome != "missed")
        return fates[0] if fates else None


class Choice(_Question):
    """One of several outcomes: a radio button for each."""

    def __init__(self, question: str, between: Iterable[object], answer: object) -> None:
        self._between = _each(between)
        if not self._between:
            raise ValueError("give the outcomes to choose between, as in between=['1', '2']")
        _require_known([] if answer is None else [str(answer)], self._between)
        # JupyterLab takes the arrow keys, with which one gets from one button of a group to the
        # next. So each is a group of its own, which is reached by Tab.
        self._buttons = {outcome: _button(outcome) for outcome in self._between}
        super().__init__(question, self._between, VBox([*self._buttons.values()]))
        for button in self._buttons.values():
            button.observe(self._on_choice, "value")
        if answer is not None:
            self._buttons[str(answer)].value = str(answer)

    @property
    def chosen(self) -> str | None:
        """The outcome that is chosen; None without a prediction."""
        return next((outcome for outcome, button in self._buttons.items() if button.value), None)

    @property
    def said(self) -> str:
        """What has been chosen, in words; empty if nothing has."""
        return "" if self.chosen is None else f"You have chosen “{self.chosen}”."

    def compare(self, outcome: object, run: _Run | None = None, *, look: str = "") -> Stage | None:
        """Print whether this outcome was the one that was chosen.

        If it was not, returns a stage of the `run`, if one is given, opened at the event that says
        `look`. Raises `ValueError` for an outcome that was none to choose from.
        """
        _require_known([str(outcome)], self._between)
        self._judge_by(lambda: f"{self._sign(outcome)} It was “{outcome}”.")
        if self.chosen is None:
            print(f"It was “{outcome}”.")
            print(ASKED_TO_CHOOSE)
            return None
        is_right = self.chosen == str(outcome)
        print(f"{self._sign(outcome)} You said “{self.chosen}”; it was “{outcome}”.")
        if run is None:
            return None
        found = _ledger_of(run)
        self._note_if_late(found)
        events = [event for event in found.events if found.body(event) == look]
        return None if is_right else Stage(run, look=events[0] if events else "")

    def _sign(self, outcome: object) -> str:
        return "✓" if self.chosen == str(outcome) else "✗"

    def _on_choice(self, change: Mapping[str, Any]) -> None:
        """Outcomes exclude each other."""
        if change["new"] is not None:
            for button in self._buttons.values():
                if button is not change["owner"]:
                    button.value = None
            self._note()


@overload
def predict(
    asked: str, among: Iterable[object] = ..., misses: Iterable[object] | None = ...
) -> Marks: ...
@overload
def predict(asked: str, *, between: Iterable[object], answer: object = ...) -> Choice: ...
def predict(
    asked: str,
    among: Iterable[object] = (),
    misses: Iterable[object] | None = None,
    *,
    between: Iterable[object] | None = None,
    answer: object = None,
) -> Marks | Choice:
    """Ask for a prediction: which of some events a player will miss, or which outcome it will be.

    `predict("P1", among=["jump", "duck"])` has a box to check for each word and one for “nothing”;
    `misses` answers it from code, an empty list for nothing. `predict("How many?", between=["1",
    "2"])` has a button for each outcome; `answer` answers that. Raises `ValueError` for an answer
    that is none of them, and `TypeError` for one kind of question with the other's answer.
    """
    if between is None:
        if answer is not None:
            raise TypeError("`answer` answers `between`; what a player misses is said by `misses`")
        return Marks(asked, among, misses)
    if among or misses is not None:
        raise TypeError("ask either with `among` and `misses`, or with `between` and `answer`")
    return Choice(asked, between, answer)


def _box(word: str) -> Any:
    layout = {"width": "auto", "margin": "2px 24px 2px 2px"}
    return Checkbox(description=word, indent=False, layout=layout)


def _button(outcome: str) -> Any:
    return RadioButtons(options=[outcome], value=None, layout={"width": "max-content"})


def _each(words: object) -> list[str]:
    """The words; a single one is not taken for its letters."""
    if isinstance(words, str) or not isinstance(words, Iterable):
        return [str(words)]
    return [str(word) for word in words]


def _require_known(answers: Sequence[str], known: Sequence[str]) -> None:
    for answer in answers:
        if known and answer not in known:
            raise ValueError(f"{answer!r} is none of {', '.join(map(repr, known))}")


def _ledger_of(run: _Run) -> Ledger:
    if isinstance(run, Mapping):
        raise TypeError('name one of the runs to compare with, as in `compare(runs["none"])`')
    return ledger(run)


def _words(found: Ledger) -> list[str]:
    return list(dict.fromkeys(found.body(event) for event in found.events))


def _outcome(fate: Fate | None) -> str:
    if fate is None:
        return "it was not said to them in this run"
    if fate.outcome == "missed":
        return f"it was missed: {fate.cause}"
    return f"it was {OUTCOMES[fate.outcome]}"


def _listed(words: Sequence[str]) -> str:
    """Words one after the other, in quotes, the last after an “and”."""
    *first, last = [f"“{word}”" for word in words] or [NOTHING]
    return f"{', '.join(first)} and {last}" if first else last
