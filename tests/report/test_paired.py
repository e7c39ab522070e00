"""Two runs: the page says what the comparison says, and refuses what cannot be compared."""

import itertools
import json
import re

import numpy as np
import pytest

from safelight.comparison import independent_difference
from safelight.report import side_by_side
from safelight.report.page import render
from safelight.report.paired import compare
from safelight.report.reading import read_run
from safelight.transfer.run_comparison import compare_runs


def readings(*runs):
    return [read_run(run.path) for run in runs]


def test_classifiers_are_compared_as_the_command_does(make_classifier):
    a, b = make_classifier("a"), make_classifier("b", seed=0, skill=0.5)
    found, expected = compare(*readings(a, b)), compare_runs(a, b)
    assert {name: x.to_dict() for name, x in found.difference.items()} == expected["difference"]
    assert (found.on, found.method) == (expected["on"], expected["method"])
    difference = expected["difference"]["accuracy"]
    shown = "{:+.1f} to {:+.1f}".format(*(100 * difference[end] for end in ("low", "high")))
    text = render(readings(a, b))
    for end in ("value", "low", "high"):
        assert f'<data value="{difference[end]}">' in text
    assert shown.count("+") + shown.count("-") >= 2


def test_a_refusal_does_not_say_where_runs_lie(make_classifier):
    a, b = make_classifier("a"), make_classifier("b", dataset="others")
    b.write_config({**b.config, "dataset": {**b.config["dataset"], "fingerprint": "other"}})
    text = render(readings(a, b))
    assert "a is about pets, b about others with other pictures or labels" in text
    assert str(a.path.parent) not in text


def test_log_likelihoods_are_compared_picture_by_picture(make_vae):
    """What is hard for both falls out: a constant difference has no spread at all."""
    found = compare(*readings(make_vae("a", shift=2.5), make_vae("b")))
    difference = found.difference["log_likelihood"]
    assert (difference.value, difference.low, difference.high) == pytest.approx((2.5, 2.5, 2.5))
    assert found.on == "40 test pictures"


def test_the_interval_of_log_likelihoods_is_about_that_of_a_mean(make_vae):
    noise = np.random.default_rng(1).normal(0, 2, 400)
    a, b = make_vae("a", shift=noise, files=400), make_vae("b", files=400)
    difference = compare(*readings(a, b)).difference["log_likelihood"]
    error = noise.std(ddof=1) / np.sqrt(400)
    assert difference.value == pytest.approx(noise.mean(), abs=1e-9)
    assert (difference.high - difference.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    backwards = compare(*readings(b, a)).difference["log_likelihood"]
    assert backwards.value == pytest.approx(-difference.value)
    assert backwards.low == pytest.approx(-difference.high, abs=0.1 * error)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"likelihood": "gaussian"}, "likelihood is bernoulli and gaussian"),
        ({"binarization": "static"}, "the same --binarization"),
        ({"seed": 1}, "the same --seed"),
    ],
)
def test_probabilities_of_other_pixels_are_not_compared(make_vae, settings, message):
    a, b = make_vae("a"), make_vae("b", settings=settings)
    with pytest.raises(ValueError, match=message):
        compare(*readings(a, b))
    text = render(readings(a, b))
    assert "They cannot be compared" in text


def test_other_test_pictures_are_not_compared(make_vae):
    with pytest.raises(ValueError, match="different test pictures"):
        compare(*readings(make_vae("a"), make_vae("b", files=30)))


def test_an_older_run_without_its_table_is_a_sentence(make_vae):
    a, b = make_vae("a"), make_vae("b")
    (a.path / "predictions.csv").unlink()
    with pytest.raises(ValueError, match="a keeps no log p"):
        compare(*readings(a, b))
    assert "a keeps no log p(x) of single pictures" in render(readings(a, b))


def test_a_difference_by_chance_is_called_none(make_vae):
    noise = np.random.default_rng(1).normal(0, 2, 40)
    text = render(readings(make_vae("a", shift=noise - noise.mean()), make_vae("b")))
    assert "No difference is shown" in text
    text = render(readings(make_vae("a", shift=5.0), make_vae("b")))
    assert "and not by chance" in text


# --- adversarial networks


def test_what_is_drawn_is_compared_by_both_intervals(make_gan):
    a, b = readings(make_gan("a", frechet=6.0), make_gan("b", frechet=9.0))
    found = compare(a, b)
    expected = independent_difference(
        a.interval("score", "frechet"), b.interval("score", "frechet")
    )
    assert found.difference["frechet"] == expected
    assert expected.high == pytest.approx(-3 + 0.5 * np.sqrt(2))
    assert found.difference["recall"].value == 0
    assert found.on == "1,000 test pictures"


@pytest.mark.parametrize(("first", "better"), [(6.0, "a"), (12.0, "b")])
def test_the_smaller_distance_is_the_better_one(make_gan, first, better):
    text = render(readings(make_gan("a", frechet=first), make_gan("b", frechet=9.0)))
    other = {"a": "b", "b": "a"}[better]
    assert f"{better} is better than {other}" in re.sub("<[^>]+>", "", text)
    assert "Frechet distance (lower is better)" in text


def test_distances_by_chance_decide_nothing(make_gan):
    text = render(readings(make_gan("a", frechet=9.0), make_gan("b", frechet=9.6)))
    assert "No difference is shown" in text


def test_distances_of_other_features_or_pictures_are_not_compared(make_gan):
    a, b = readings(make_gan("a"), make_gan("b", features="VGG16"))
    with pytest.raises(ValueError, match=r"a was judged by a judge .* b by VGG16 .* compare"):
        compare(a, b)
    for options in ({"test": "c"}, {"side": 32}):
        with pytest.raises(ValueError, match="expected the same --seed"):
            compare(a, *readings(make_gan("c", **options)))
    other = make_gan("c")
    (other.path / "environment.json").write_text('{"backend": "jax"}')
    with pytest.raises(ValueError, match=r"on tensorflow, c on jax: .*compare"):
        compare(a, *readings(other))
    other.write_config({**other.config, "dataset": {"name": "cells", "fingerprint": "f" * 64}})
    with pytest.raises(ValueError, match="expected two trainings on the same data"):
        compare(a, *readings(other))


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_a_game_that_is_not_over_is_said_to_be_so(make_gan, order):
    both = [make_gan("a"), make_gan("b")]
    (both[1].path / "metrics.json").unlink()
    with pytest.raises(ValueError, match="what b draws was not judged: train it to the end"):
        compare(*readings(*both[order]))
    assert "They cannot be compared" in render(readings(*both))


def test_without_an_interval_nothing_is_advised(make_gan):
    a, b = make_gan("a"), make_gan("b")
    metrics = json.loads((a.path / "metrics.json").read_text())
    metrics["score"]["frechet"] = {"value": 3.0, "low": None, "high": None}
    (a.path / "metrics.json").write_text(json.dumps(metrics))
    text = render(readings(a, b))
    assert "nothing can be said of chance" in text
    assert "Take the one that costs less" in text


def test_what_a_stranger_says_of_features_turns_no_text_around(make_gan):
    text = render(readings(make_gan("a"), make_gan("b", features="x\u202ey")))
    assert "\u202e" not in text


def test_small_distances_keep_their_digits(make_gan):
    text = re.sub(
        "<[^>]+>", "", render(readings(make_gan("a", frechet=0.27), make_gan("b", frechet=0.31)))
    )
    assert "−0.04" in text


def test_a_page_of_a_game_says_what_it_is_worth_and_what_it_has_learned_by_heart(make_gan):
    text = re.sub("<[^>]+>", "", render(readings(make_gan("game", copies=0.25))))
    for words in ("75 % of what it draws is believable", "9 of 10 classes", "learned by heart"):
        assert words in text.replace("\xa0", " ").replace("&nbsp;", " ")
    plain = re.sub("<[^>]+>", "", render(readings(make_gan("game"))))
    assert "learned by heart" not in plain


# --- three and more


def text_of(found):
    return re.sub("<[^>]+>", "", str(found)).replace("&nbsp;", " ")


def advice_for(*runs):
    answer = side_by_side.chapter(readings(*runs)).answer
    return [text_of(step.words) for step in answer.steps], text_of(answer)


def test_of_several_the_best_is_used_though_the_first_pair_says_another(make_vae):
    """Of the first two it is b; c is better still."""
    runs = [make_vae(name, shift=shift) for name, shift in zip("abc", (0.0, 5.0, 9.0), strict=True)]
    for order in itertools.permutations(runs):
        steps, told = advice_for(*order)
        assert steps == ["Use c."]
        assert "c is better than every other one" in told
    answer = side_by_side.chapter(readings(*runs)).answer
    # The difference that is told is the smallest of the best: the advice is no better than that.
    assert text_of(answer.label) == "log p(x) of c minus that of b"
    assert text_of(answer.figure) == "+4.0 nats"


def test_no_run_is_used_that_is_not_better_than_every_other(make_vae):
    """Neither a nor b is better than the other, and both are than c: that is all that is said."""
    noise = np.random.default_rng(1).normal(0, 2, 40)
    a, b = make_vae("a", shift=9.0), make_vae("b", shift=9.0 + noise - noise.mean())
    for order in itertools.permutations((a, b, make_vae("c"))):
        steps, told = advice_for(*order)
        assert "None is shown to be better than every other one" in told
        assert not any(step.startswith("Use ") for step in steps)
        assert "a rather than c" in steps[0]
        assert "b rather than c" in steps[0]
        assert re.fullmatch("Of (a, b|b, a) take the one that costs less.*", steps[1])


def test_a_pair_decides_for_none_that_it_cannot_be_compared_with(make_vae):
    other = make_vae("other", settings={"likelihood": "gaussian"})
    a, b = make_vae("a", shift=5.0), make_vae("b")
    for order in itertools.permutations((other, a, b)):
        steps, told = advice_for(*order)
        assert steps == ["Of two that differ clearly use a rather than b."]
        assert "These cannot be compared" in told
    assert "They cannot be compared" in advice_for(other, a)[1]


def test_smaller_distances_are_better_among_several_too(make_gan):
    runs = [make_gan(name, frechet=x) for name, x in zip("abc", (9.0, 3.0, 6.0), strict=True)]
    assert advice_for(*runs)[0] == ["Use b."]


def test_every_pair_has_its_difference_and_the_other_way_round_it_is_the_negative(make_vae):
    runs = [make_vae(name, shift=shift) for name, shift in zip("abc", (0.0, 5.0, 9.0), strict=True)]
    table = side_by_side._table_of_pairs(
        [
            side_by_side._Pair(x, y, compare(x, y))
            for x, y in itertools.combinations(readings(*runs), 2)
        ]
    )
    assert [text_of(row[0]) for row in table.rows] == ["a minus b", "a minus c", "b minus c"]
    shown = [float(text_of(row[1]).split()[0].replace("−", "-")) for row in table.rows]
    assert shown == [-5, -9, -4]
    a, b = readings(*runs[:2])
    pair = side_by_side._Pair(a, b, compare(a, b))
    turned = pair.seen_from(b)
    assert (turned.a, turned.b, turned.better) == (b, a, pair.better)
    assert turned.difference.low == -pair.difference.high
    assert turned.difference.value == -pair.difference.value
