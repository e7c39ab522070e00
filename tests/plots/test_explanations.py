import numpy as np
import pytest

from safelight import plots
from safelight.plots.explanations import COLOURS, lay_over, strength_of

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, shape, np.uint8) for shape in [(40, 40), (30, 90, 3), (700, 500, 1)]]
MAPS = [RNG.normal(size=(14, 14)) for _ in IMAGES]
FIGURES = {
    "one": lambda: plots.plot_explanations(IMAGES[:1], MAPS[:1], titles=["x.png\n$a^ 98 %"]),
    "checked": lambda: plots.plot_explanations(
        IMAGES[1:2], MAPS[1:2], titles=["x.png\na, 98 %\nagree"], occlusions=MAPS[:1]
    ),
    "several": lambda: plots.plot_explanations(IMAGES, MAPS, titles=["a", "b" * 99, "c\nd"]),
    "nothing": lambda: plots.plot_explanations(IMAGES[:1], [-np.ones((4, 4))], titles=["a"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_is_drawn_without_a_warning_and_inside_its_frame(name, assert_whole):
    assert_whole(FIGURES[name]())


def test_where_nothing_speaks_the_picture_stays_and_where_most_does_it_is_coloured():
    picture = np.full((4, 5, 3), 0.3, np.float32)
    strength = np.zeros((4, 5), np.float32)
    strength[1, 2] = 1
    laid = lay_over(picture, strength)
    np.testing.assert_allclose(laid[strength == 0], 0.3, atol=1e-6)
    import matplotlib

    top = np.array(matplotlib.colormaps[COLOURS](1.0)[:3])
    assert np.abs(laid[1, 2] - top).max() < np.abs(picture[1, 2] - top).max()


def test_strength_knows_shares_of_the_strongest_place_alone():
    """A map twice as strong, or with more that speaks against, is drawn alike."""
    found = RNG.normal(size=(7, 7))
    plain = strength_of(found, (28, 21))
    assert plain.shape == (28, 21)
    assert (plain.min(), plain.max()) == (0, 1)
    np.testing.assert_allclose(strength_of(2 * found, (28, 21)), plain, rtol=1e-5)
    np.testing.assert_allclose(strength_of(np.where(found < 0, -9, found), (28, 21)), plain)
    same = strength_of(found, (7, 7))
    np.testing.assert_allclose(same, np.maximum(found, 0) / found.max(), rtol=1e-5)


def test_the_picture_stands_beside_its_map():
    figure = plots.plot_explanations([IMAGES[0]], [np.zeros((3, 3))], titles=["a"])
    shown = figure.axes[0].images[0].get_array()
    height, width = shown.shape[:2]
    zoom = height // 40
    expected = np.repeat(np.repeat(IMAGES[0] / 255, zoom, 0), zoom, 1)[..., None]
    np.testing.assert_allclose(shown[:, :height], np.broadcast_to(expected, (height, height, 3)))
    np.testing.assert_allclose(shown[:, width - height :], shown[:, :height], atol=1e-6)


def test_what_does_not_fit_is_a_sentence():
    with pytest.raises(ValueError, match="1 images, 2 maps"):
        plots.plot_explanations(IMAGES[:1], MAPS[:2], titles=["a"])
    with pytest.raises(ValueError, match="2 occlusions"):
        plots.plot_explanations(IMAGES[:1], MAPS[:1], titles=["a"], occlusions=MAPS[:2])
    with pytest.raises(ValueError, match="at least one"):
        plots.plot_explanations([], [], titles=[])
    for wrong in (np.full((3, 3), np.nan), np.zeros((3, 3, 1)), np.zeros((0, 3))):
        with pytest.raises(ValueError, match="all of it finite"):
            plots.plot_explanations(IMAGES[:1], [wrong], titles=["a"])
