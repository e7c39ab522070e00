import numpy as np
import pytest

from safelight import plots


def pictures(*shapes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size=shape, dtype=np.uint8) for shape in shapes]


SHAPES = [(60, 60), (30, 90, 3), (90, 30, 1), (1, 1, 3)]
LONG = "Übergroße_Zellen mit Rissen am Rand und einem sehr langen Namen"
FIGURES = {
    "grid": lambda: plots.plot_image_grid(pictures(*SHAPES), titles=["a", LONG, "$x^2", "d"]),
    "one image": lambda: plots.plot_image_grid(pictures((60, 60))),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_is_drawn_without_a_warning_and_inside_its_frame(name, assert_whole):
    assert_whole(FIGURES[name]())


def test_names_are_data_and_no_formula():
    figure = plots.plot_image_grid(pictures((9, 9)), titles=["$\\frac$ a\x00b\x1b"])
    title = figure.axes[0].title
    assert title.get_text() == "$\\frac$ a?b?"
    assert not title.get_parse_math()
    figure._repr_png_()


def test_image_grid_shows_the_pixels():
    grey, colour = pictures((5, 7), (6, 4, 3))
    figure = plots.plot_image_grid([grey, colour, colour / 255])
    shown = [ax.images[0].get_array() for ax in figure.axes[:3]]
    assert np.allclose(shown[0], np.repeat(grey[:, :, None], 3, axis=2) / 255)
    assert np.allclose(shown[1], colour / 255)
    assert np.allclose(shown[2], colour / 255)
    resized = colour.astype(np.float32)
    with pytest.raises(ValueError, match="value_range"):
        plots.plot_image_grid([resized])
    figure = plots.plot_image_grid([resized], value_range=(0, 255))
    assert np.allclose(figure.axes[0].images[0].get_array(), colour / 255)


@pytest.mark.parametrize("shape", [(4,), (4, 4, 2), (4, 4, 4), (0, 4, 3), (1, 4, 4, 3)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        plots.plot_image_grid([np.zeros(shape)])


def test_image_grid_checks_titles_and_number():
    with pytest.raises(ValueError, match="0 images"):
        plots.plot_image_grid([])
    with pytest.raises(ValueError, match="1 images and 2 titles"):
        plots.plot_image_grid(pictures((3, 3)), titles=["a", "b"])
