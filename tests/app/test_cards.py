"""Answers as parts of a page: numbers are those of the answer, names are never markup."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from safelight.app import cards
from safelight.app.answers import Answer


class Reader(HTMLParser):
    """The text and the tags of a piece of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.parts = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.parts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", "".join(self.parts))


@pytest.fixture
def ask(stub, paint, tmp_path):
    def ask(red, name="a.png", **options):
        Image.fromarray(paint(red, **options)).save(tmp_path / name)
        return stub.answer(tmp_path / name)

    return ask


def test_a_card_has_the_answers_numbers(stub, ask):
    read = Reader(cards.render_card(ask(0.8), stub))
    assert "red 80.0 %" in read.text
    values = [float(attrs["value"]) for tag, attrs in read.tags if tag == "data"]
    np.testing.assert_allclose(values, [0.8, 0.8, 0.2], atol=1e-9)
    pictures = [attrs for tag, attrs in read.tags if tag == "img"]
    assert len(pictures) == 2 + 4
    assert all(each["src"].startswith("data:image/webp;base64,") for each in pictures)
    assert "None of these" not in read.text


def test_what_is_refused_says_so_and_what_it_would_be(stub, ask):
    text = Reader(cards.render_card(ask(0.8, green=1.0), stub)).text
    assert "None of these" in text
    assert "Only 1.0 % of familiar pictures lie as far" in text
    assert "80.0 %" in text


def test_only_the_most_probable_classes_have_a_bar(make_stub, tmp_path, ask):
    stub = make_stub(tmp_path / "many", names=("a", "b"))
    stub.class_names = [f"class {i}" for i in range(12)]
    answer = ask(0.5)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(12))
    many = Answer("a.png", "", probabilities, None, False, answer.pixels, answer.map)
    read = Reader(cards.render_card(many, stub))
    shown = [float(attrs["value"]) for tag, attrs in read.tags if tag == "data"][1:]
    np.testing.assert_allclose(shown, np.sort(probabilities)[::-1][:5])
    assert "7 more with less." in read.text


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "${7*7}", "{{7}}", "a\u202eb\n"])
def test_names_are_text(make_stub, tmp_path, ask, name):
    stub = make_stub(tmp_path / "odd", names=(name, "red"))
    answer = ask(0.1)
    html = str(cards.render_card(answer, stub)) + str(cards.render_head(stub))
    html += str(cards.render_card(Answer(name, error=name), stub))
    assert not re.search(r"<script|\$\{|\{\{|\u202e", html)
    if name.isprintable():
        assert Reader(html).text.count(name) >= 5


def test_a_file_that_is_no_picture_is_one_sentence(stub):
    read = Reader(cards.render_card(Answer("notes.txt", error="not a picture"), stub))
    assert read.text.strip() == "notes.txt Not answered: not a picture."


def test_the_head_has_the_accuracy_and_its_interval(stub):
    read = Reader(cards.render_head(stub))
    assert "colours: blue or red?" in read.text
    assert "Right on 90.0 % [75.0, 97.0] of 20 pictures" in read.text
    assert "learned from 4." in read.text


def test_a_run_without_numbers_has_a_head_all_the_same(stub):
    (stub.run.path / "metrics.json").unlink()
    text = Reader(cards.render_head(stub)).text
    assert "colours: blue or red?" in text
    assert "Right on" not in text


def test_many_classes_are_counted_in_the_title(stub):
    stub.class_names = list("abcdef")
    assert cards.describe(stub).title == "colours: which of 6 classes?"


def test_the_notes_say_what_is_refused_and_what_is_missing(stub, make_stub, tmp_path):
    text = Reader(cards.render_notes(stub)).text
    assert "1 in 20 familiar pictures is refused wrongly" in text
    assert "--data" not in text
    poor = make_stub(tmp_path / "poor", refuse=0.0, dataset=False)
    text = Reader(cards.render_notes(poor)).text
    assert "is never said here" in text
    assert "safelight serve RUN --data FOLDER" in text


def test_without_their_files_no_neighbours_are_shown(make_stub, paint, tmp_path):
    poor = make_stub(tmp_path / "poor", dataset=False)
    Image.fromarray(paint(0.8)).save(tmp_path / "a.png")
    html = str(cards.render_card(poor.answer(tmp_path / "a.png"), poor))
    assert "Nearest training pictures" not in html


def test_the_style_asks_for_nothing():
    assert not re.search(r"url\(|@import", cards.read_style())
