"""Answers, and what a run is, as parts of a page; names of files and classes are escaped."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from safelight.app.answers import Answer, Answering, Neighbour
from safelight.app.drawing import data_address, fit, overlay
from safelight.report import words
from safelight.report.reading import read_run
from safelight.report.rendering import make_environment

_MOST_SHOWN = 5  # classes with a bar
_MOST_IN_TITLE = 4
_SMALL = 120  # pixels of a training picture


def render_card(answer: Answer, answerer: Answering) -> Markup:
    """One answer: picture, map, classes with probabilities, nearest training pictures."""
    if answer.error:
        return _render("error", file=answer.file, error=answer.error)
    order = answer.probabilities.argsort()[::-1][:_MOST_SHOWN]
    shown = [(answerer.class_names[i], float(answer.probabilities[i])) for i in order]
    return _render(
        "answer",
        answer=answer,
        shown=shown,
        left_out=len(answerer.class_names) - len(shown),
        refuse=answerer.refuse,
        nearest=[_near(each) for each in answer.nearest],
        **_views(answer),
    )


def _views(answer: Answer) -> dict[str, str]:
    """The picture, and the map over it, as addresses."""
    if answer.pixels is None or answer.map is None:
        return {}
    pixels = fit(answer.pixels)
    laid = overlay(pixels, answer.map)
    return {"picture": data_address(pixels), "map": data_address(laid)}


def _near(neighbour: Neighbour) -> dict[str, Any]:
    """What a card shows of a training picture; `seen` is empty where its file is gone."""
    found = neighbour.picture
    seen = "" if found.pixels is None else data_address(fit(found.pixels, _SMALL))
    return {"file": found.file, "label": found.label, "seen": seen, "distance": neighbour.distance}


def render_refusal(message: str) -> Markup:
    """A sentence in place of answers."""
    return _render("refusal", message=message)


def render_head(answerer: Answering) -> Markup:
    """What the run tells apart, and how well: title, accuracy with its interval."""
    return _render("head", **dataclasses.asdict(describe(answerer)))


def render_notes(answerer: Answering) -> Markup:
    """How the answers are to be read, and what they do not say."""
    return _render(
        "notes",
        refuse=answerer.refuse,
        one_in=words.one_in(answerer.refuse) if answerer.refuse else "",
        num_found=answerer.training.num_found,
        num_training=len(answerer.training),
    )


@dataclasses.dataclass(frozen=True)
class Description:
    """A run in a few words.

    Attributes:
        dataset: The data set's name.
        title: It, and what is told apart.
        accuracy: With its interval, as markup; empty if the run has none.
        num_test: On how many pictures; 0 if unknown.
        num_training: How many it learned from.
    """

    dataset: str
    title: str
    accuracy: Markup
    num_test: int
    num_training: int


def describe(answerer: Answering) -> Description:
    """The run in a few words, as its page begins."""
    read = read_run(answerer.run.path)
    accuracy = read.interval("accuracy")
    return Description(
        dataset=read.dataset,
        title=f"{words.shorten(read.dataset, 40)}: {_choice(answerer.class_names)}",
        accuracy=Markup("") if accuracy is None else words.percent_interval(accuracy),
        num_test=read.num_test or 0,
        num_training=len(answerer.training),
    )


def _choice(class_names: Sequence[str]) -> str:
    if len(class_names) > _MOST_IN_TITLE:
        return f"which of {len(class_names)} classes?"
    short = [words.shorten(name, 24) for name in class_names]
    return f"{', '.join(short[:-1])} or {short[-1]}?"


def read_style() -> str:
    """The style sheet of the page."""
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, "style.css")[0]


def _render(macro: str, **values: Any) -> Markup:
    module = _environment().get_template("cards.html").module
    html = str(getattr(module, macro)(**values))
    # Gradio fills templates in with values: what looks like a place to fill in is spelt out.
    for sign in "{}$":
        html = html.replace(sign, f"&#{ord(sign)};")
    return Markup(html)  # noqa: S704  rendered with every value escaped


@functools.cache
def _environment() -> jinja2.Environment:
    environment = make_environment("safelight.app")
    environment.filters["name"] = words.name
    environment.filters["printable"] = words.printable
    environment.filters["percent"] = words.percent
    return environment
