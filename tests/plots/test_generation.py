import numpy as np
import pytest

from safelight import plots

RNG = np.random.default_rng(0)
LONG = "Übergroße_Zellen mit Rissen am Rand $x^2"


def pictures(*leading, size=(8, 8), channels=1):
    return RNG.integers(0, 255, size=(*leading, *size, channels), dtype=np.uint8)


def shown(figure, rows, columns, size=(8, 8)):
    """Read the pixels' values of each picture back out of the image that was drawn."""
    image = np.asarray(figure.axes[0].images[0].get_array())
    gaps = (image == 1).all(axis=(1, 2)), (image == 1).all(axis=(0, 2))
    starts = [np.flatnonzero(np.diff(np.r_[True, gap].astype(int)) == -1) for gap in gaps]
    ends = [np.flatnonzero(np.diff(np.r_[gap, True].astype(int)) == 1) + 1 for gap in gaps]
    assert [len(start) for start in starts] == [rows, columns]
    found = np.empty((rows, columns, *size, 3))
    for row, column in np.ndindex(rows, columns):
        tile = image[starts[0][row] : ends[0][row], starts[1][column] : ends[1][column]]
        zoom = tile.shape[0] // size[0]
        assert tile.shape == (zoom * size[0], zoom * size[1], 3)
        assert not np.ptp(tile.reshape(size[0], zoom, size[1], zoom, 3), axis=(1, 3)).any()
        found[row, column] = tile[::zoom, ::zoom]
    return found


def grey(pictures):
    return np.repeat(pictures / 255, 3, axis=-1)


def row_names(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def column_names(figure):
    return [label.get_text() for label in figure.axes[0].get_xticklabels()]


FIGURES = {
    "generators": lambda: plots.plot_generators(
        [(name, np.random.default_rng(0).random((15, 8, 8, 1))) for name in ("real", "a GAN")]
    ),
    "one pair": lambda: plots.plot_reconstructions(pictures(1), pictures(1) / 255),
    "many pairs": lambda: plots.plot_reconstructions(pictures(23), pictures(23)),
    "wide colour pairs": lambda: plots.plot_reconstructions(
        pictures(3, size=(30, 90), channels=3), pictures(3, size=(30, 90), channels=3)
    ),
    "one sample": lambda: plots.plot_samples(pictures(1)),
    "many samples": lambda: plots.plot_samples(pictures(300)),
    "tall samples": lambda: plots.plot_samples(pictures(7, size=(90, 30), channels=3)),
    "samples by class": lambda: plots.plot_samples(pictures(6), row_names=["a", LONG]),
    "manifold": lambda: plots.plot_latent_manifold(pictures(20, 20)),
    "tiny manifold": lambda: plots.plot_latent_manifold(pictures(1, 1)),
    "ways": lambda: plots.plot_interpolation(pictures(4, 10)),
    "two kinds of ways": lambda: plots.plot_interpolation(
        {"linear": pictures(2, 15), LONG: pictures(2, 15)}, originals=(pictures(2), pictures(2))
    ),
    "traversals": lambda: plots.plot_traversals(
        pictures(10, 9), RNG.random(40), values=np.linspace(-2.5, 2.5, 9)
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_is_drawn_without_a_warning_and_inside_its_frame(name, assert_whole):
    assert_whole(FIGURES[name]())


def test_each_reconstruction_is_below_its_original():
    originals, reconstructions = pictures(12), pictures(12)
    figure = plots.plot_reconstructions(originals, (reconstructions / 255).astype(np.float32))
    rows = shown(figure, 4, 6)
    assert np.allclose(rows[[0, 2]].reshape(12, 8, 8, 3), grey(originals), atol=1e-6)
    assert np.allclose(rows[[1, 3]].reshape(12, 8, 8, 3), grey(reconstructions), atol=1e-6)
    assert row_names(figure) == ["original", "reconstruction"] * 2
    error = np.sqrt(np.mean((originals / 255 - reconstructions / 255) ** 2))
    assert f"error {error:.3f}" in figure.get_suptitle()


def test_reconstructions_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="one reconstruction per original"):
        plots.plot_reconstructions(pictures(3), pictures(2))


@pytest.mark.parametrize(
    ("number", "table"), [(1, (1, 1)), (12, (3, 4)), (64, (8, 8)), (100, (10, 10)), (200, (10, 20))]
)
def test_samples_fill_a_table_if_one_fits(number, table):
    drawn = pictures(number)
    assert np.allclose(
        shown(plots.plot_samples(drawn), *table).reshape(number, 8, 8, 3), grey(drawn), atol=1e-6
    )


def test_samples_are_named_row_by_row():
    drawn = pictures(6)
    figure = plots.plot_samples(drawn, row_names=["cat", "dog"], title="two classes")
    assert np.allclose(shown(figure, 2, 3).reshape(6, 8, 8, 3), grey(drawn), atol=1e-6)
    assert row_names(figure) == ["cat", "dog"]
    assert figure.get_suptitle() == "two classes"
    with pytest.raises(ValueError, match="2 row_names for 6 pictures in 3 rows of 2"):
        plots.plot_samples(drawn, row_names=["cat", "dog"], columns=2)


@pytest.mark.parametrize(
    ("temperature", "source"),
    [
        (1.0, "draws of the prior"),
        (0.5, "at temperature 0.5: z ~ N(0, 0.5²"),
        (0.0, "z = 0"),
    ],
)
def test_the_title_of_samples_says_what_they_were_drawn_from(temperature, source):
    figure = plots.plot_samples(pictures(6), temperature=temperature)
    title = figure.get_suptitle().replace("\n", " ")
    assert source in title
    assert "N(0, I)" not in title  # nobody said so


def test_the_manifold_is_a_map_with_quantiles_of_the_prior_at_its_edges():
    plane = pictures(5, 5, channels=3)
    figure = plots.plot_latent_manifold(plane)
    assert np.allclose(shown(figure, 5, 5), plane / 255, atol=1e-6)
    quantiles = ["−1.3", "−0.5", "0.0", "0.5", "1.3"]  # of 0.1, 0.3, 0.5, 0.7 and 0.9
    assert column_names(figure) == quantiles
    assert row_names(figure) == quantiles[::-1]  # the second unit grows upwards
    # Of the plane's two units only: there may be others, which stay at 0.
    assert "equal share of the two units' prior" in figure.get_suptitle()
    figure = plots.plot_latent_manifold(plane[:2, :2], values=[-1, 2], unit_names=("a", "b"))
    assert row_names(figure) == ["2.0", "−1.0"]
    assert figure.axes[0].get_ylabel() == "b"
    assert "equal share" not in figure.get_suptitle()


@pytest.mark.parametrize(("shape", "values"), [((2, 3), None), ((2, 2), [1]), ((2, 2), [1, 0])])
def test_a_manifold_whose_values_do_not_fit_is_refused(shape, values):
    with pytest.raises(ValueError, match="as many rows as columns"):
        plots.plot_latent_manifold(pictures(*shape), values=values)


def test_the_ways_between_one_pair_are_below_each_other():
    linear, spherical, begin, end = pictures(2, 5), pictures(2, 5), pictures(2), pictures(2)
    ways = {"linear": linear, "spherical": spherical}
    figure = plots.plot_interpolation(ways, originals=(begin, end))
    rows = shown(figure, 4, 7)
    assert np.allclose(rows[:, 0], grey(begin)[[0, 0, 1, 1]], atol=1e-6)
    assert np.allclose(rows[:, -1], grey(end)[[0, 0, 1, 1]], atol=1e-6)
    assert np.allclose(rows[::2, 1:-1], grey(linear), atol=1e-6)
    assert np.allclose(rows[1::2, 1:-1], grey(spherical), atol=1e-6)
    assert row_names(figure) == ["linear", "spherical"] * 2
    steps = ["0 %", "25 %", "50 %", "75 %", "100 %"]
    assert column_names(figure) == ["original", *steps, "original"]
    alone = plots.plot_interpolation(linear)
    assert np.allclose(shown(alone, 2, 5), grey(linear), atol=1e-6)
    assert column_names(alone) == steps


def test_ways_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="all of one shape"):
        plots.plot_interpolation({"a": pictures(2, 5), "b": pictures(2, 6)})
    with pytest.raises(ValueError, match="all of one shape"):
        plots.plot_interpolation({})
    with pytest.raises(ValueError, match="first and the last"):
        plots.plot_interpolation(pictures(2, 5), originals=(pictures(2), pictures(3)))


def test_traversals_are_sorted_by_kl_and_named():
    rows, kl = pictures(3, 2), [0.003, 0.2, 9.0, 1.25]
    figure = plots.plot_traversals(rows, kl, values=[-2, 2], units=[0, 3, 2])
    assert np.allclose(shown(figure, 3, 2), grey(rows[[2, 1, 0]]), atol=1e-6)
    names = ["unit 2, KL 9.0 nats", "unit 3, KL 1.2 nats", "unit 0, KL < 0.01 nats"]
    assert row_names(figure) == names
    assert column_names(figure) == ["−2.0", "2.0"]
    # Without units the rows are those of vae.traverse: the first of the units sorted by KL.
    figure = plots.plot_traversals(rows, kl, values=[-2, 2])
    assert np.allclose(shown(figure, 3, 2), grey(rows), atol=1e-6)
    assert row_names(figure) == [*names[:2], "unit 1, KL 0.20 nats"]


@pytest.mark.parametrize(
    ("kl", "values", "units"),
    [
        ([1, 2], [0, 1], None),
        ([1, 2, 3], [0], None),
        ([[1, 2, 3]], [0, 1], None),
        ([1, 2, 3], [0, 1], [0, 1]),
        ([1, 2, 3], [0, 1], [0, 1, 3]),
        ([1, 2, 3], [0, 1], [0, 1, -1]),
    ],
)
def test_traversals_that_do_not_fit_are_refused(kl, values, units):
    with pytest.raises(ValueError, match="a unit per row"):
        plots.plot_traversals(pictures(3, 2), kl, values=values, units=units)


@pytest.mark.parametrize("shape", [(), (4,), (8, 8), (2, 8, 8, 2), (2, 8, 8, 4), (0, 8, 8, 1)])
def test_what_is_no_array_of_pictures_is_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        plots.plot_samples(np.zeros(shape))


def test_a_single_way_is_not_taken_for_many_pictures_without_channels():
    with pytest.raises(ValueError, match="num_pairs, steps, height, width"):
        plots.plot_interpolation(np.zeros((5, 8, 8, 3)))


@pytest.mark.parametrize("value", [-1.0, 2.0, np.nan])
def test_values_out_of_their_range_are_refused(value):
    with pytest.raises(ValueError, match="from 0 to 1"):
        plots.plot_samples(np.full((2, 8, 8, 1), value))


def test_pictures_without_a_channel_are_grey():
    drawn = pictures(4)
    figure = plots.plot_samples(drawn[..., 0])
    assert np.allclose(shown(figure, 2, 2).reshape(4, 8, 8, 3), grey(drawn), atol=1e-6)
