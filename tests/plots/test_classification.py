import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from safelight import plots
from safelight.metrics import Interval

LONG = "Übergroße_Zellen mit Rissen am Rand und einem sehr langen Namen"
MATRIX = np.array([[389, 22], [62, 183]])
INTERVALS = {"accuracy": Interval(0.864, 0.836, 0.889), "perfect": Interval(1, 0.994, 1)}
NOTHING = Interval(np.nan, np.nan, np.nan, "no image of class index 1")


def answers(num_images=40, num_classes=3):
    rng = np.random.default_rng(0)
    labels = rng.integers(num_classes, size=num_images)
    probabilities = rng.dirichlet(np.ones(num_classes), size=num_images)
    return labels, probabilities


def pictures(*shapes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size=shape, dtype=np.uint8) for shape in shapes]


def mistakes():
    labels, probabilities = answers()
    names, images = ["a", LONG, "ключ"], pictures(*[(8, 8, 3)] * 40)
    return plots.plot_mistakes(images, labels, probabilities=probabilities, class_names=names)


def sweep(times=(0.9, 48, 98), values=(0.841, 0.853, 0.857), *, threshold=0.839):
    found = [(value, value - 0.04, value + 0.04) for value in values]
    names = ["head alone", "block5_conv3", "block5_conv1"][: len(values)]
    return plots.plot_sweep(names, times, found, recommended=0, threshold=threshold)


FIGURES = {
    "two classes": lambda: plots.plot_confusion_matrix(MATRIX, ["cat", LONG]),
    "thirty classes": lambda: plots.plot_confusion_matrix(np.eye(30, dtype=int), [LONG] * 30),
    "mistakes": mistakes,
    "intervals": lambda: plots.plot_intervals(INTERVALS | {"roc_auc": NOTHING}),
    "comparison": lambda: plots.plot_comparison(
        {LONG: (INTERVALS["accuracy"], 200), "b": (NOTHING, 1)}
    ),
    "reliability": lambda: plots.plot_reliability(*answers()),
    "sweep": sweep,
    "sweep of one time": lambda: sweep(times=(2, 2, 2), threshold=None),
    "sweep up to 100 %": lambda: sweep(values=(1, 1, 1)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_is_drawn_without_a_warning_and_inside_its_frame(name, assert_whole):
    assert_whole(FIGURES[name]())


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plots.plot_confusion_matrix(MATRIX, ["a", "b"], ax=ax),
        lambda ax: plots.plot_intervals(INTERVALS, ax=ax),
        lambda ax: plots.plot_reliability(*answers(), ax=ax),
    ],
)
def test_a_given_ax_is_drawn_into(draw):
    figure = Figure()
    ax = figure.subplots()
    assert draw(ax) is figure
    assert ax.has_data()


def test_confusion_matrix_says_counts_and_shares_of_the_true_class(texts):
    found = texts(plots.plot_confusion_matrix(MATRIX, ["functional", "defective"]))
    for cell in ("389\n95 %", "22\n5 %", "62\n25 %", "183\n75 %"):
        assert cell in found
    empty = plots.plot_confusion_matrix([[3, 0], [0, 0]], ["a", "b"])
    assert "0" in texts(empty)
    with pytest.raises(ValueError, match="3 class_names"):
        plots.plot_confusion_matrix(MATRIX, list("abc"))


def test_mistakes_are_the_surest_with_both_names(texts):
    labels = np.array([0, 0, 1])
    probabilities = np.array([[0.4, 0.6], [0.9, 0.1], [0.95, 0.05]])
    # A mapping with the needed pictures is enough, so a large data set is not decoded.
    images = dict(zip([2, 0], pictures((4, 4), (4, 4)), strict=True))
    names = ["cat", "dog"]
    figure = plots.plot_mistakes(images, labels, probabilities=probabilities, class_names=names)
    assert [ax.get_title() for ax in figure.axes] == [
        "true: dog\nsays: cat\n95 % sure",
        "true: cat\nsays: dog\n60 % sure",
    ]
    right = plots.plot_mistakes({}, [0], probabilities=np.array([[1.0, 0]]), class_names=names)
    assert "No mistake among 1 images" in texts(right)


def test_intervals_are_written_beside_their_lines(texts):
    figure = plots.plot_intervals(INTERVALS | {"roc_auc": NOTHING})
    for text in ("86.4 % [83.6, 88.9]", "100.0 % [99.4, 100.0]", "not defined", "ROC AUC"):
        assert text in texts(figure)
    with pytest.raises(ValueError, match="no intervals"):
        plots.plot_intervals({})


def test_comparison_writes_times_for_people(texts):
    accuracy = INTERVALS["accuracy"]
    times = {
        "a": (accuracy, 2.04),
        "b": (accuracy, 41),
        "c": (accuracy, 160),
        "d": (accuracy, 7200),
    }
    found = [text.strip() for text in texts(plots.plot_comparison(times))]
    for text in ("2.0 s", "41 s", "2.7 min", "2.0 h"):
        assert text in found
    with pytest.raises(ValueError, match="zero seconds"):
        plots.plot_comparison({"a": (accuracy, 0)})


def test_a_sweep_shows_each_way_where_it_belongs_and_marks_one():
    (ax,) = sweep().axes
    drawn = {line.get_label(): line for line in ax.lines}
    points = [line for line in ax.lines if line.get_marker() in ("o", "D")]
    assert ax.get_xscale() == "log"
    (others,) = [line for line in points if line.get_marker() == "o"]
    (marked,) = [line for line in points if line.get_marker() == "D"]
    assert others.get_xdata().tolist() == [48, 98]
    assert others.get_ydata().tolist() == pytest.approx([85.3, 85.7])
    assert (marked.get_xdata()[0], marked.get_ydata()[0]) == (0.9, pytest.approx(84.1))
    threshold = drawn["best mean less one standard error"]
    assert threshold.get_ydata() == pytest.approx([83.9, 83.9])


@pytest.mark.parametrize(
    "times", [(0.9, 48, 98), (10, 10.5, 11), (2, 2, 2), (0.01, 0.011, 5000), (99, 1, 98)]
)
@pytest.mark.parametrize("values", [(0.841, 0.853, 0.857), (0.85, 0.85, 0.85), (1, 1, 1)])
def test_names_in_a_sweep_cover_neither_each_other_nor_a_point(times, values):
    figure = sweep(times, values)
    (ax,) = figure.axes
    figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in ax.texts]
    middles = ax.transData.transform([(x, 100 * y) for x, y in zip(times, values, strict=True)])
    assert len(boxes) == 3
    for number, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:number]) == 0
        assert not any(box.contains(*middle) for middle in middles)
        assert ax.bbox.contains(*box.min)
        assert ax.bbox.contains(*box.max)


@pytest.mark.parametrize(
    ("times", "values", "expected"),
    [((1, 0, 2), (0.8, 0.8, 0.8), "above zero"), ((1, 2), (0.8, 0.8, 0.8), "for each name")],
)
def test_a_sweep_that_cannot_be_drawn_is_an_error(times, values, expected):
    with pytest.raises(ValueError, match=expected):
        sweep(times, values)
