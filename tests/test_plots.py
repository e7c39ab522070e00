import io
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

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


def history(num_epochs):
    keys = ("loss", "val_loss", "accuracy", "val_accuracy")
    return {key: np.linspace(0.9, 0.1, num_epochs) for key in keys}


def all_figures():
    labels, probabilities = answers()
    images = pictures((60, 60), (30, 90, 3), (90, 30, 1), (1, 1, 3))
    names = ["a", LONG, "ключ"]
    mistakes = plots.plot_mistakes(
        pictures(*[(8, 8, 3)] * 40), labels, probabilities=probabilities, class_names=names
    )
    return {
        "history": plots.plot_history(history(20)),
        "one epoch": plots.plot_history(history(1)),
        "loss only": plots.plot_history({"loss": [0.3, np.nan, 0.2]}),
        "two classes": plots.plot_confusion_matrix(MATRIX, ["cat", LONG]),
        "thirty classes": plots.plot_confusion_matrix(np.eye(30, dtype=int), [LONG] * 30),
        "grid": plots.plot_image_grid(images, titles=["a", LONG, "$x^2", "d"]),
        "one image": plots.plot_image_grid(images[:1]),
        "mistakes": mistakes,
        "intervals": plots.plot_intervals(INTERVALS | {"roc_auc": NOTHING}),
        "comparison": plots.plot_comparison(
            {LONG: (INTERVALS["accuracy"], 200), "b": (NOTHING, 1)}
        ),
        "filters": plots.plot_filters(np.random.default_rng(0).normal(size=(3, 3, 3, 20))),
        "activations": plots.plot_activations(np.random.default_rng(0).random((7, 9, 30))),
        "reliability": plots.plot_reliability(labels, probabilities),
    }


FIGURES = all_figures()


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible()]


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_is_drawn_without_a_warning_and_inside_its_frame(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = Image.open(io.BytesIO(FIGURES[name]._repr_png_())).convert("L")
    grey = np.asarray(picture)
    assert grey.min() < 128
    # What runs over the frame would leave ink on its outermost pixels.
    for edge in (grey[0], grey[-1], grey[:, 0], grey[:, -1]):
        assert edge.min() == 255


def test_a_notebook_cell_that_ends_with_a_plot_shows_it():
    pytest.importorskip("IPython")
    from IPython.core.formatters import DisplayFormatter

    data, _ = DisplayFormatter().format(FIGURES["history"])
    assert data["image/png"].startswith(b"\x89PNG")


def test_no_pyplot_and_no_global_setting_is_touched():
    # rcParams.copy() does not ask for the backend, which alone would import pyplot.
    program = (
        "import sys, matplotlib as m; before = m.rcParams.copy(); from safelight import plots;"
        "plots.plot_history({'loss': [1, 2]})._repr_png_();"
        "assert 'matplotlib.pyplot' not in sys.modules;"
        "assert all(dict.__getitem__(m.rcParams, k) == dict.__getitem__(before, k) for k in before)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_threads_draw_the_same_picture():
    wanted = plots.plot_history(history(5))._repr_png_()
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(plots.plot_history(history(5))._repr_png_()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 4


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


def test_history_shows_the_numbers_and_the_best_epoch():
    figure = plots.plot_history({"loss": [3, 2, 1], "val_loss": [3, 1, 2], "accuracy": [0, 0.5, 1]})
    loss, accuracy = figure.axes
    training, validation, best = loss.lines
    assert training.get_ydata().tolist() == [3, 2, 1]
    assert validation.get_ydata().tolist() == [3, 1, 2]
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (2, 1)
    assert accuracy.lines[0].get_ydata().tolist() == [0, 50, 100]
    assert accuracy.get_ylabel() == "accuracy (%)"
    counted = {"epoch": [0.0, 1.0, 2.0], "val_loss": [3, 1, 2]}  # 0 is the head before fine-tuning
    (loss,) = plots.plot_history(counted).axes
    assert loss.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert (loss.lines[1].get_xdata()[0], loss.lines[1].get_label()) == (1, "best epoch: 1")
    with pytest.raises(ValueError, match="'lr'"):
        plots.plot_history({"lr": [1]})
    with pytest.raises(ValueError, match="epoch"):
        plots.plot_history({"loss": []})


def test_confusion_matrix_says_counts_and_shares_of_the_true_class():
    found = texts(plots.plot_confusion_matrix(MATRIX, ["functional", "defective"]))
    for cell in ("389\n95 %", "22\n5 %", "62\n25 %", "183\n75 %"):
        assert cell in found
    empty = plots.plot_confusion_matrix([[3, 0], [0, 0]], ["a", "b"])
    assert "0" in texts(empty)
    with pytest.raises(ValueError, match="3 class_names"):
        plots.plot_confusion_matrix(MATRIX, list("abc"))


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


def test_mistakes_are_the_surest_with_both_names():
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


def test_intervals_are_written_beside_their_lines():
    figure = plots.plot_intervals(INTERVALS | {"roc_auc": NOTHING})
    for text in ("86.4 % [83.6, 88.9]", "100.0 % [99.4, 100.0]", "not defined", "ROC AUC"):
        assert text in texts(figure)
    with pytest.raises(ValueError, match="no intervals"):
        plots.plot_intervals({})


def test_comparison_writes_times_for_people():
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


def test_filters_are_grey_at_zero_and_turn_caffes_order_round():
    kernels = np.zeros((3, 3, 3, 2))
    kernels[..., 0, 0] = 2.0
    first, second = (ax.images[0].get_array() for ax in plots.plot_filters(kernels).axes)
    assert np.allclose(first, [1, 0.5, 0.5])
    assert np.allclose(second, 0.5)
    turned = plots.plot_filters(kernels, channel_order="bgr").axes[0].images[0].get_array()
    assert np.allclose(turned, [0.5, 0.5, 1])
    with pytest.raises(ValueError, match="first layer"):
        plots.plot_filters(np.zeros((3, 3, 64, 8)))


def test_activations_choose_the_strongest_channels():
    activations = np.random.default_rng(0).random((4, 5, 6)) + np.array([0, 5, 1, 9, 0, 2])
    titles = [ax.get_title() for ax in plots.plot_activations(activations, channels=3).axes]
    assert titles == ["channel 3", "channel 1", "channel 5"]
    chosen = plots.plot_activations(activations, channels=[4, 0])
    assert [ax.get_title() for ax in chosen.axes] == ["channel 4", "channel 0"]
    with pytest.raises(ValueError, match="one image"):
        plots.plot_activations(np.zeros((1, 4, 4, 8)))


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_save_figure_writes_whole_files(tmp_path, ending):
    path = plots.save_figure(FIGURES["history"], tmp_path / f"history.{ending}", dpi=40)
    assert [item.name for item in tmp_path.iterdir()] == [f"history.{ending}"]
    assert path.stat().st_size > 1000


def test_save_figure_takes_axes_and_leaves_nothing_after_an_error(tmp_path, monkeypatch):
    figure = plots.plot_history({"loss": [1, 2]})
    plots.save_figure(figure.axes[0], tmp_path / "a.png", dpi=50)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (230, 170)
    with pytest.raises(ValueError, match=r"\.png, \.svg or \.pdf"):
        plots.save_figure(figure, tmp_path / "a.exe")
    before = (tmp_path / "a.png").read_bytes()

    def half(path, **_options):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        plots.save_figure(figure, tmp_path / "a.png")
    assert [item.name for item in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before
