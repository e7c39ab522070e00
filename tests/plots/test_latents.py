import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.stats import chi2

from safelight import plots

RNG = np.random.default_rng(0)
LONG = "Übergroße_Zellen mit Rissen am Rand $x^2"


def clouds(num=500, num_classes=10):
    labels = RNG.integers(num_classes, size=num)
    return RNG.normal(size=(num_classes, 2))[labels] + 0.2 * RNG.normal(size=(num, 2)), labels


FIGURES = {
    "ten classes": lambda: plots.plot_latent_scatter(*clouds(2000)),
    "long names": lambda: plots.plot_latent_scatter(*clouds(50, 3), class_names=[LONG] * 3),
    "thirty classes": lambda: plots.plot_latent_scatter(*clouds(900, 30)),
    "no labels": lambda: plots.plot_latent_scatter(clouds()[0]),
    "one point": lambda: plots.plot_latent_scatter([[0.0, 0.0]], [0], show_prior=False),
    "KL of forty units": lambda: plots.plot_kl_per_unit(RNG.random((50, 40)) ** 9),
    "KL of one unit": lambda: plots.plot_kl_per_unit([[0.0]]),
    "KL of many units": lambda: plots.plot_kl_per_unit(RNG.random((3, 300))),
    "bounds": lambda: plots.plot_bounds(
        [1, 5, 5000], [-93.1, -90, -88], standard_errors=[1, 0.5, 0.2], exact=-87.5
    ),
    "the ELBO alone": lambda: plots.plot_bounds([1], [-1234567.0]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_is_drawn_without_a_warning_and_inside_its_frame(name, assert_whole):
    assert_whole(FIGURES[name]())


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plots.plot_latent_scatter(*clouds(), ax=ax),
        lambda ax: plots.plot_kl_per_unit(RNG.random((3, 4)), ax=ax),
        lambda ax: plots.plot_bounds([1, 2], [-2, -1], ax=ax),
    ],
)
def test_a_given_ax_is_drawn_into(draw):
    figure = Figure()
    ax = figure.subplots()
    assert draw(ax) is figure
    assert ax.has_data()


def test_scatter_colours_each_point_by_its_class_and_names_it_where_it_lies():
    z, labels = clouds()
    (ax,) = plots.plot_latent_scatter(z, labels, class_names=list("abcdefghij")).axes
    names = {text.get_text(): text for text in ax.texts}
    assert sorted(names) == list("abcdefghij")
    points = ax.collections[0]
    order = np.lexsort(points.get_offsets().T)
    assert np.allclose(points.get_offsets()[order], z[np.lexsort(z.T)])
    for colour, label in zip(points.get_facecolors()[order], labels[np.lexsort(z.T)], strict=True):
        box = names["abcdefghij"[label]].get_bbox_patch()
        assert to_rgb(colour[:3]) == to_rgb(box.get_facecolor())
    far = RNG.normal(size=(90, 2)) + np.repeat([[0, 0], [20, 0], [0, 20]], 30, axis=0)
    (ax,) = plots.plot_latent_scatter(far, np.repeat([0, 1, 2], 30)).axes
    for text, cloud in zip(ax.texts, far.reshape(3, 30, 2), strict=True):
        assert np.allclose(text.get_position(), np.median(cloud, axis=0))


def test_names_of_classes_that_lie_together_do_not_meet():
    z = RNG.normal(size=(300, 2))
    figure = plots.plot_latent_scatter(z, np.arange(300) % 6, class_names=["name"] * 6)
    figure._repr_png_()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_circle_holds_its_share_of_the_prior():
    (circle,) = plots.plot_latent_scatter(clouds()[0]).axes[0].patches
    assert chi2(2).cdf(circle.radius**2) == pytest.approx(0.95)
    assert not plots.plot_latent_scatter(clouds()[0], show_prior=False).axes[0].patches


@pytest.mark.parametrize(
    ("labels", "names"), [([0], None), ([0, 1], ["a"]), ([0, -1], None), ([0.0, 1.0], None)]
)
def test_labels_that_do_not_fit_are_refused(labels, names):
    with pytest.raises(ValueError, match="one integer per point"):
        plots.plot_latent_scatter([[0, 0], [1, 1]], labels, class_names=names)


@pytest.mark.parametrize("z", [np.zeros((5, 3)), np.zeros((0, 2)), [[0, np.nan]], [0, 1]])
def test_points_that_lie_in_no_plane_are_refused(z):
    with pytest.raises(ValueError, match=r"pass \(n, 2\) finite numbers"):
        plots.plot_latent_scatter(z)


def test_kl_per_unit_is_sorted_by_its_last_epoch():
    history = np.array([[3, 0, 0.1, 0.0], [0.001, 2, 0.5, 0.02]])
    ax, bar = plots.plot_kl_per_unit(history).axes
    assert np.array_equal(ax.collections[0].get_array(), history.T[[1, 2, 3, 0]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1", "2", "3", "0"]
    assert ax.get_title() == "3 of 4 units active (KL above 0.01 nats)"
    assert list(ax.lines[0].get_ydata()) == [2.5, 2.5]  # between the third and the last row
    assert "nats" in bar.get_ylabel()
    ax = plots.plot_kl_per_unit(history, threshold=1.0).axes[0]
    assert ax.get_title() == "1 of 4 units active (KL above 1 nats)"


@pytest.mark.parametrize("history", [[1.0, 2.0], np.zeros((0, 3)), [[-1.0]], [[np.nan] * 3]])
def test_what_is_no_history_of_units_is_refused(history):
    with pytest.raises(ValueError, match="epochs, units"):
        plots.plot_kl_per_unit(history)


def test_bounds_show_their_numbers_and_intervals(texts):
    figure = plots.plot_bounds([1, 100], [-93.1, -88.25], standard_errors=[0.5, 0.1], exact=-88)
    figure._repr_png_()  # the numbers below are written when it is drawn
    for text in ("ELBO −93.10", "−88.25", "log p(x) = −88.00, exact", "100"):
        assert text in texts(figure)
    (ax,) = figure.axes
    ((low, high),) = {tuple(s[:, 1]) for s in ax.collections[0].get_segments() if s[0, 0] == 1}
    assert (low, high) == pytest.approx((-93.1 - 0.98, -93.1 + 0.98))


@pytest.mark.parametrize(
    ("ks", "bounds", "errors"),
    [([], [], None), ([1, 2], [1], None), ([0], [1], None), ([1], [1], [1, 2])],
)
def test_bounds_that_do_not_fit_are_refused(ks, bounds, errors):
    with pytest.raises(ValueError, match="at least one k"):
        plots.plot_bounds(ks, bounds, standard_errors=errors)
