import numpy as np
import pytest

from safelight import plots

TWO = {"ours $x$": [(10, 84.5, 84.2, 84.8), (2, 86.0, 85.7, 86.2)], "theirs": [(2, 90.0), (10, 88)]}


def test_the_picture_is_drawn_without_a_warning_and_inside_its_frame(assert_whole):
    levels = {"published": 84.58}
    assert_whole(plots.plot_curves(TWO, xlabel="minutes", ylabel="nats", levels=levels, log="x"))
    many = {f"way {i}": [(x, 10.0**-i * x) for x in range(1, 30)] for i in range(7)}
    assert_whole(plots.plot_curves(many, xlabel="epoch", ylabel="variance", log="xy"))


def test_it_shows_the_points_in_order_with_their_ranges(texts):
    figure = plots.plot_curves(TWO, xlabel="minutes", ylabel="nats", levels={"best": 84.0})
    (ax,) = figure.axes
    ours, theirs = ax.containers
    assert ours.lines[0].get_xydata().tolist() == [[2, 86.0], [10, 84.5]]
    ranges = [path[:, 1].tolist() for path in ours.lines[2][0].get_segments()]
    np.testing.assert_allclose(ranges, [[85.7, 86.2], [84.2, 84.8]])
    assert theirs.lines[2] == ()
    assert {"ours $x$", "theirs", "best"} <= {*texts(figure)}


@pytest.mark.parametrize("curves", [{}, {"a": []}, {"a": [(1, 2, 3)]}, {"a": [1, 2]}])
def test_other_things_are_refused(curves):
    with pytest.raises(ValueError, match=r"expected rows|no curves"):
        plots.plot_curves(curves, xlabel="x", ylabel="y")
