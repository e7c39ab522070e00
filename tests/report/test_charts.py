"""Drawings say what the numbers say: places are turned back into numbers and compared."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.metrics import Interval, calibration_bins
from safelight.report import charts
from safelight.report.charts import Axis, Row
from safelight.report.svg import Drawing, Scale, digits_of, ticks


def drawn(chart):
    return ElementTree.fromstring(str(chart.svg))


def of_class(root, style):
    return [e for e in root.iter() if style in e.get("class", "").split()]


def numbers(element, *names):
    return [float(element.get(name)) for name in names]


def affine(places, values):
    """The straight line from places to values; both ends of an axis give it."""
    slope, offset = np.polyfit(places, values, 1)
    return lambda place: slope * place + offset


def across(root, scale=1):
    """From x to numbers, by the labels under the vertical lines of the grid."""
    lines = [e for e in of_class(root, "grid") if e.get("x1") == e.get("x2")]
    places = [float(e.get("x1")) for e in lines]
    labels = {
        round(float(e.get("x")), 2): e.text
        for e in root.iter("text")
        if "small" in e.get("class", "")
    }
    values = [float(labels[round(place, 2)].replace("−", "-")) / scale for place in places]
    return affine(places, values)


def upwards(root, scale=1):
    """From y to numbers, by the labels beside the horizontal lines of the grid."""
    lines = [e for e in of_class(root, "grid") if e.get("y1") == e.get("y2")]
    labels = {float(e.get("y")): e.text for e in root.iter("text") if e.get("text-anchor") == "end"}
    places = [float(e.get("y1")) for e in lines]
    return affine(
        places, [float(labels[y].replace("−", "-").replace(",", "")) / scale for y in places]
    )


def test_intervals_lie_where_their_numbers_are():
    rows = [
        Row("a", (Interval(0.4, 0.25, 0.6),), (0.3, 0.5)),
        Row("b", (Interval(0.7, 0.65, 0.9),)),
    ]
    root = drawn(charts.interval_rows("t", rows, Axis("x, %", scale=100)))
    number = across(root, scale=100)
    middles = [number(float(e.get("cx"))) for e in of_class(root, "mark")]
    assert middles == pytest.approx([0.4, 0.7], abs=2e-3)
    whiskers = [
        numbers(e, "x1", "x2") for e in of_class(root, "whisker") if e.get("y1") == e.get("y2")
    ]
    ends = [[number(x) for x in whisker] for whisker in whiskers]
    assert np.allclose(ends, [[0.25, 0.6], [0.65, 0.9]], atol=2e-3)
    assert [number(float(e.get("cx"))) for e in of_class(root, "dot")] == pytest.approx(
        [0.3, 0.5], abs=2e-3
    )


def test_an_interval_without_ends_has_a_mark_and_no_whisker():
    nan = math.nan
    root = drawn(
        charts.interval_rows(
            "t",
            [Row("a", (Interval(0.4, nan, nan),)), Row("b", (Interval(0.6, 0.5, 0.7),))],
            Axis("x"),
        )
    )
    assert len(of_class(root, "mark")) == 2
    assert len([e for e in of_class(root, "whisker") if e.get("y1") == e.get("y2")]) == 1
    assert [e[0].text for e in of_class(root, "mark")] == ["0.4", "0.6 [0.5, 0.7]"]
    (told,) = (e.text for e in root.iter("desc"))
    assert "a 0.4; b 0.6 [0.5, 0.7]" in told


def test_the_meter_shows_the_interval_and_the_number_to_beat():
    axis = Axis("right, %", scale=100, limits=(0, 1), reference=(0.5, "chance"))
    root = drawn(charts.meter("t", Interval(0.8, 0.7, 0.85), axis))
    (track,), (band,) = of_class(root, "track"), of_class(root, "band")
    start, whole = numbers(track, "x", "width")
    left, width = numbers(band, "x", "width")
    assert (left - start) / whole == pytest.approx(0.7, abs=1e-3)
    assert width / whole == pytest.approx(0.15, abs=1e-3)
    (reference,) = of_class(root, "reference")
    assert (float(reference.get("x1")) - start) / whole == pytest.approx(0.5, abs=1e-3)


def heights(path):
    return [float(y) for y in path.get("d").replace("M", "").replace("L", "").split()[1::2]]


def test_curves_go_through_the_numbers_that_there_are():
    """Held-out numbers may be missing in some epochs: the line goes on to the next."""
    nan = math.nan
    lines = {"training": [4.0, 3.0, 2.0, 1.0], "held out": [5.0, nan, 3.5, 3.0], "none": [nan] * 4}
    chart = charts.curves("t", lines, [1, 2, 3, 4], Axis("nats"))
    root, number = drawn(chart), upwards(drawn(chart))
    for style, line in (("first", lines["training"]), ("second", [5.0, 3.5, 3.0])):
        (path,) = [e for e in of_class(root, "line") if style in e.get("class")]
        assert [number(y) for y in heights(path)] == pytest.approx(line, abs=0.03)
        marks = [e for e in of_class(root, "mark") if style in e.get("class")]
        assert len(marks) == len(line) + 1  # one more in the legend
    assert [row[2] for row in chart.table.rows][1] == "–"
    assert len(chart.table.columns) == 3


def test_what_lies_beyond_the_frame_is_left_out_and_said():
    line = {"training": [-900.0, 2.0, 3.0, 4.0]}
    chart = charts.curves("t", line, [1, 2, 3, 4], Axis("nats", limits=(1.0, 5.0)))
    root = drawn(chart)
    number = upwards(root)
    (path,) = of_class(root, "line")
    assert [number(y) for y in heights(path)] == pytest.approx([2, 3, 4], abs=0.03)
    assert "1 number lies beyond the frame" in chart.caption
    assert "−900.0" in str(chart.table.rows[0][1])


def test_the_heat_of_a_cell_is_its_share_of_the_row():
    counts = [[8, 2, 0], [1, 3, 0], [0, 0, 0]]
    root = drawn(charts.confusion(counts, ["a", "b", "c"]))
    heats = [float(e.get("fill-opacity", 1)) / 0.8 for e in of_class(root, "heat")]
    assert heats == pytest.approx([0.8, 0.2, 0, 0.25, 0.75, 0, 0, 0, 0], abs=1e-3)
    written = [e.text for e in of_class(root, "strong")]
    assert written == ["8", "2", "0", "1", "3", "0", "0", "0", "0"]


def test_the_reliability_diagram_shows_the_bins_of_the_metric():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], 200)
    bins = calibration_bins(rng.integers(0, 3, 200), probabilities, num_bins=10)
    root = drawn(charts.reliability(bins))
    number = upwards(root, scale=100)
    marks = of_class(root, "mark")
    assert [number(float(e.get("cy"))) for e in marks] == pytest.approx(
        [a.value for _, a, _ in bins], abs=2e-3
    )
    upright = [
        numbers(e, "y1", "y2") for e in of_class(root, "whisker") if e.get("x1") == e.get("x2")
    ]
    ends = [[number(y) for y in pair] for pair in upright]
    assert np.allclose(ends, [[a.low, a.high] for _, a, _ in bins], atol=2e-3)
    # A dot on the dashed line would be as sure as right.
    (dashed,) = of_class(root, "reference")
    (x1, x2), (y1, y2) = numbers(dashed, "x1", "x2"), numbers(dashed, "y1", "y2")
    on_line = [number(y1 + (float(e.get("cx")) - x1) * (y2 - y1) / (x2 - x1)) for e in marks]
    assert on_line == pytest.approx([mean for mean, _, _ in bins], abs=3e-3)


def test_answers_that_are_all_wholly_sure_have_a_diagram():
    """Of two classes and a strong network every stated probability may be 1.000000."""
    bins = calibration_bins(np.array([0, 1, 0, 1]), np.eye(2)[[0, 1, 1, 1]], num_bins=10)
    root = drawn(charts.reliability(bins))
    (mark,), (dashed,) = of_class(root, "mark"), of_class(root, "reference")
    assert upwards(root, scale=100)(float(mark.get("cy"))) == pytest.approx(0.75, abs=2e-3)
    assert float(mark.get("cx")) == float(dashed.get("x2")) > float(dashed.get("x1"))


def test_bars_are_as_high_as_their_numbers_and_fall():
    values = [1.0, 4.0, 2.5]
    root = drawn(charts.bars("t", values, Axis("nats"), row="unit"))
    heights = [float(e.get("height")) for e in of_class(root, "bar")]
    assert np.array(heights) / heights[0] == pytest.approx([1, 2.5 / 4, 1 / 4], abs=1e-3)


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-12], [1e6, 1.0]])
def test_bars_of_any_size_are_drawn(values):
    assert len(of_class(drawn(charts.bars("t", values, Axis("nats"), row="unit")), "bar")) == len(
        values
    )


def test_every_chart_has_its_numbers_as_a_table():
    rows = [Row("a", (Interval(0.4, 0.25, 0.6),))]
    made = [
        charts.interval_rows("t", rows, Axis("x")),
        charts.curves("t", {"training": [1.0, 2.0]}, [1, 2], Axis("x")),
        charts.confusion([[1, 0], [0, 1]], ["a", "b"]),
        charts.bars("t", [1.0, 2.0], Axis("x"), row="unit"),
        charts.reliability([(0.5, Interval(0.4, 0.3, 0.5), 3)]),
    ]
    for chart in made:
        assert chart.table is not None
        assert all(len(row) == len(chart.table.columns) for row in chart.table.rows)
        assert chart.bare().table is None


def test_nothing_finite_is_an_error_and_no_empty_drawing():
    with pytest.raises(ValueError, match="no finite number"):
        charts.interval_rows("t", [Row("a", (Interval(math.nan, math.nan, math.nan),))], Axis("x"))


def test_names_in_a_drawing_are_texts():
    drawing = Drawing("<b>", 'a "quoted" & one', 10)
    drawing.text((1, 1), "</svg><script>alert(1)</script>")
    root = ElementTree.fromstring(str(drawing.to_markup()))
    assert [e.tag for e in root] == ["title", "desc", "text"]
    assert root[2].text == "</svg><script>alert(1)</script>"


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_round_and_within(low, reach, number):
    places = ticks(low, low + reach, number)
    step = reach / number
    assert len(places) <= 2 * number + 1
    slack = 1e-6 * reach + 4 * np.spacing(abs(low) + reach)  # as far as floats tell apart
    assert all(low - slack <= place <= low + reach + slack for place in places)
    gaps = np.diff(places)
    if len(gaps) > 1 and abs(low) < 1e3 * reach:
        assert gaps == pytest.approx(gaps[0], rel=1e-3)
        mantissa = gaps[0] / 10 ** math.floor(math.log10(gaps[0]) + 1e-6)
        assert min(abs(mantissa - round_one) for round_one in (1, 2, 5, 10)) < 1e-2
        assert gaps[0] >= 0.99 * step


@pytest.mark.parametrize(
    ("places", "digits"), [([0, 50, 100], 0), ([0, 0.5, 1], 1), ([0.02, 0.04], 2)]
)
def test_ticks_get_as_many_digits_as_tell_them_apart(places, digits):
    assert digits_of(places) == digits


def test_a_scale_keeps_what_lies_outside_at_its_ends():
    scale = Scale(0, 10, 100, 200)
    assert [scale(x) for x in (-5, 0, 5, 10, 50)] == [100, 100, 150, 200, 200]
