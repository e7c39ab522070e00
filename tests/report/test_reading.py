"""Reading without trust: what is no number is none."""

import math

import pytest

from safelight.report import reading, words
from safelight.report.model_card import render_model_card
from safelight.report.page import render
from safelight.report.reading import interval, number, read_run
from safelight.runs import Run


@pytest.mark.parametrize("value", [None, "1", True, [], {}, math.nan, math.inf, 10**400])
def test_what_is_no_finite_number_is_none(value):
    assert number(value) is None


@pytest.mark.parametrize("value", [0, -2, 1.5])
def test_a_number_is_one(value):
    assert number(value) == value


def test_an_interval_needs_a_value_and_keeps_its_reason():
    assert interval({"low": 0, "high": 1}) is None
    assert interval([1, 2, 3]) is None
    found = interval({"value": None, "low": "x", "high": 1, "reason": "no image"})
    assert math.isnan(found.value)
    assert math.isnan(found.low)
    assert (found.high, found.reason) == (1, "no image")


def test_a_run_of_another_kind_is_shown_as_it_is(tmp_path):
    run = Run.create(tmp_path / "run")
    run.write_config({"kind": "vae-poem", "dataset": {"name": "<b>x"}})
    rows = [{"beta": 0.5, "rate": {"value": 12.25, "low": 12, "high": 13}, "note": "<i>"}] * 2
    run.write_metrics({"points": rows, "epochs": 4, "long": [1, 2, 3]})
    page = render([read_run(run.path), read_run(run.path)])
    assert page.count('<data value="12.25">12.2</data>') == 4
    assert "A run of the kind <bdi>vae poem</bdi>" in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert "## Evaluation" in render_model_card(read_run(run.path))


def test_dig_stops_where_nothing_is():
    assert reading.dig({"a": {"b": 1}}, "a", "b") == 1
    assert reading.dig({"a": 3}, "a", "b") is None
    assert reading.dig(None, "a") is None


@pytest.mark.parametrize(
    ("rate", "said"), [(0.125, "1 in 8"), (0.5, "5 in 10"), (0.0, "none"), (0.0004, "1 in 2,500")]
)
def test_rates_are_said_as_people_say_them(rate, said):
    assert words.one_in(rate) == said


def test_no_rate_is_said_as_a_far_other_one():
    """An accuracy of 60 % was half of the answers wrong: what is said is near to what is so."""
    for thousandth in range(1, 951):
        number, _, among = words.one_in(thousandth / 1000).replace(",", "").partition(" in ")
        assert int(number) / int(among) == pytest.approx(thousandth / 1000, rel=0.21)
    assert words.one_in(1 - 0.6) == "4 in 10"


@pytest.mark.parametrize(
    ("value", "said"), [(-0.04, "0.0"), (-1.25, "−1.2"), (1234.5, "1,234.5"), (0.0, "0.0")]
)
def test_numbers_have_the_minus_of_a_printed_text_and_zero_no_sign(value, said):
    assert words.plain(value, 1) == said
