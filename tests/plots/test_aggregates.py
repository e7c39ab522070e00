import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from safelight import plots

X, Y = np.linspace(-5, 5, 201), np.linspace(-6, 6, 241)
NORMAL = np.exp(-(X**2) / 2) / math.sqrt(2 * math.pi)
PLANE = np.exp(-(X**2) / 2 - Y[:, None] ** 2 / 2) / (2 * math.pi)
NAMES = ("latent unit 3", "latent unit 0")
ENDS = np.array([-0.5, 0, 0.5]) * [[1], [1], [1]]
RATES = np.array([[40.0], [25.0], [11.0]]) + ENDS[:, [1, 0, 2]]
DISTORTIONS = np.array([[68.0], [75.0], [100.0]]) + ENDS[:, [1, 0, 2]]


def aggregate(num_marginals, *, plane=PLANE):
    curves = (X, NORMAL, np.roll(NORMAL, 20))
    marginals = {f"unit {i}, KL 1.9 = 1.8 + 0.1": curves for i in range(num_marginals)}
    return plots.plot_aggregate(plane, PLANE, places=(X, Y), unit_names=NAMES, marginals=marginals)


FIGURES = {
    "no marginals": lambda: aggregate(0),
    "one": lambda: aggregate(1),
    "seven": lambda: aggregate(7),
    "twelve": lambda: aggregate(12),
    "three betas": lambda: plots.plot_rate_distortion(RATES, DISTORTIONS, betas=[0.25, 1, 4]),
    "one beta": lambda: plots.plot_rate_distortion(RATES[:1], DISTORTIONS[:1], betas=[1]),
    "a density": lambda: plots.plot_rate_distortion(RATES, DISTORTIONS - 9e4, betas=[0.25, 1, 4]),
    "tiny": lambda: plots.plot_rate_distortion(RATES / 1e3, DISTORTIONS / 1e3, betas=[0.25, 1, 4]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_is_drawn_without_a_warning_and_inside_its_frame(name, assert_whole):
    assert_whole(FIGURES[name]())


def test_a_given_ax_is_drawn_into():
    figure = Figure()
    ax = figure.subplots()
    assert plots.plot_rate_distortion(RATES, DISTORTIONS, betas=[1, 2, 3], ax=ax) is figure


def test_contours_hold_the_shares_of_the_mass_that_they_name():
    ax = aggregate(0).axes[0]
    lines = ax.collections[-1]  # the prior's
    radii = [math.sqrt(-2 * math.log(1 - share)) for share in (0.9, 0.5)]  # of a plane's normal
    for path, radius in zip(lines.get_paths(), radii, strict=True):
        found = np.linalg.norm(path.vertices[:-1], axis=1)
        assert found.mean() == pytest.approx(radius, abs=0.03)


def test_marginals_show_both_curves_on_their_own_places():
    ax = aggregate(1).axes[1]
    posterior, prior = ax.lines
    np.testing.assert_array_equal(posterior.get_ydata(), NORMAL)
    np.testing.assert_array_equal(prior.get_ydata(), np.roll(NORMAL, 20))
    assert ax.get_title() == "unit 0, KL 1.9 = 1.8 + 0.1"


def test_along_a_grey_line_rate_and_distortion_have_one_sum_and_the_elbo_is_minus_that():
    (ax,) = plots.plot_rate_distortion(RATES, DISTORTIONS, betas=[0.25, 1, 4]).axes
    grey = [line for line in ax.lines if len(line.get_xdata()) == 2]
    sums = [np.add(*line.get_data()) for line in grey]
    np.testing.assert_allclose([s[0] for s in sums], [s[1] for s in sums])
    written = {
        float(text.get_text().replace("−", "-")): text.xy
        for text in ax.texts
        if "β" not in text.get_text()
    }
    assert written
    for elbo, (x, y) in written.items():
        assert x + y == pytest.approx(-elbo)
        assert min(abs(s[0] + elbo) for s in sums) < 1e-9


def test_the_model_with_the_highest_elbo_is_marked():
    (ax,) = plots.plot_rate_distortion(RATES, DISTORTIONS, betas=[0.25, 1, 4]).axes
    marked = [text for text in ax.texts if text.get_weight() == "bold"]
    assert [text.get_text() for text in marked] == ["β = 1, ELBO −100.0"]
    assert marked[0].xy == (75, 25)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: aggregate(0, plane=PLANE.T), r"two of \(241, 201\)"),
        (lambda: aggregate(0, plane=-PLANE), "not negative"),
        (lambda: aggregate(0, plane=0 * PLANE), "finite"),
        (lambda: plots.plot_rate_distortion(RATES, DISTORTIONS, betas=[1]), "1 betas"),
        (lambda: plots.plot_rate_distortion(RATES[:0], DISTORTIONS[:0], betas=[]), "at least one"),
    ],
)
def test_what_does_not_fit_is_refused(draw, words):
    with pytest.raises(ValueError, match=words):
        draw()
