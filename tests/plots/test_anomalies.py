import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from safelight import plots
from safelight.metrics import Interval

RNG = np.random.default_rng(0)
LONG = "Übergroße_Zellen mit Rissen am Rand $x^2"
ODD = np.arange(300) % 3 == 0
SCORES = {
    "minus the ELBO (nats)": 4500 + 100 * RNG.normal(size=300) + 200 * ODD,
    "reconstruction error": RNG.exponential(size=300),
    "always the same": np.ones(300),
}


def pictures(num, *, shape=(8, 11, 3)):
    return RNG.integers(0, 256, (num, *shape), dtype=np.uint8)


FIGURES = {
    "two classes": lambda: plots.plot_scores(SCORES, ODD.astype(int), class_names=["fine", LONG]),
    "ten classes": lambda: plots.plot_scores(
        SCORES, np.arange(300) % 10, class_names=list("abcdefghij"), normal=3
    ),
    "no classes": lambda: plots.plot_scores({"one": RNG.normal(size=5)}),
    "curves": lambda: plots.plot_roc(SCORES, ODD),
    "curves with areas": lambda: plots.plot_roc(
        {LONG: SCORES["reconstruction error"]}, ODD, aurocs={LONG: Interval(0.5, 0.4, 0.6)}
    ),
    "oddest": lambda: plots.plot_oddest(pictures(6), pictures(6), titles=[LONG] * 6),
    "the oddest": lambda: plots.plot_oddest(
        pictures(1, shape=(64, 64, 1)), pictures(1, shape=(64, 64, 1)) / 255, titles=[""]
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_is_drawn_without_a_warning_and_inside_its_frame(name, assert_whole):
    assert_whole(FIGURES[name]())


def test_a_given_ax_is_drawn_into():
    figure = Figure()
    assert plots.plot_roc(SCORES, ODD, ax=figure.subplots()) is figure


def test_the_area_under_a_curve_is_the_auroc_ties_included():
    values = np.round(SCORES["minus the ELBO (nats)"], -2)  # rounded, so that many are tied
    (ax,) = plots.plot_roc({"score": values, "flat": np.ones(300)}, ODD).axes
    _, curve, flat = ax.lines  # the first is the diagonal
    x, y = curve.get_data()
    assert np.trapezoid(y, x) / 1e4 == pytest.approx(roc_auc_score(ODD, values))
    assert np.trapezoid(flat.get_ydata(), flat.get_xdata()) / 1e4 == pytest.approx(0.5)


def test_each_class_makes_a_hundred_percent_in_every_panel():
    figure = plots.plot_scores(SCORES, np.arange(300) % 3, class_names=list("abc"))
    for ax in figure.axes[:3]:
        filled, *_ = [patch for patch in ax.patches if patch.get_fill()]
        assert filled.get_data().values.sum() == pytest.approx(100)
        assert len(ax.patches) == 6  # three classes, each filled and outlined
    assert not figure.axes[3].axison


def test_a_picture_stands_at_the_left_of_its_reconstruction():
    left, right = pictures(2), pictures(2)
    ax = plots.plot_oddest(left, right, titles=["a", "b"]).axes[1]
    shown = ax.images[0].get_array()
    zoom = shown.shape[0] // 8
    np.testing.assert_allclose(shown[::zoom, : 11 * zoom : zoom], left[1] / 255, atol=1e-6)
    np.testing.assert_allclose(shown[::zoom, -11 * zoom :: zoom], right[1] / 255, atol=1e-6)
    assert ax.get_title() == "b"


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: plots.plot_scores({}), "at least one"),
        (lambda: plots.plot_scores({"a": [1.0], "b": [1.0, 2.0]}), "shapes"),
        (lambda: plots.plot_scores({"a": [np.nan]}), "not finite"),
        (lambda: plots.plot_scores({"a": [1.0]}, [3], class_names=["x"]), "1 class_names"),
        (lambda: plots.plot_roc({"a": [1.0, 2.0]}, [True, True]), "some of both"),
        (lambda: plots.plot_oddest(pictures(2), pictures(3), titles=["", ""]), "per image"),
        (lambda: plots.plot_oddest(pictures(2), pictures(2), titles=[""]), "1 titles"),
    ],
)
def test_what_does_not_fit_is_refused(draw, words):
    with pytest.raises(ValueError, match=words):
        draw()
