import subprocess
import sys
import threading

import pytest
from PIL import Image

from safelight import plots

HISTORY = {"loss": [3, 2, 1], "val_loss": [3, 1, 2], "accuracy": [0, 0.5, 1]}
SECONDS = 300  # a busy machine takes its time


def test_a_notebook_cell_that_ends_with_a_plot_shows_it():
    pytest.importorskip("IPython")
    from IPython.core.formatters import DisplayFormatter

    data, _ = DisplayFormatter().format(plots.plot_history(HISTORY))
    assert data["image/png"].startswith(b"\x89PNG")


def test_no_pyplot_and_no_global_setting_is_touched():
    # rcParams.copy() does not ask for the backend, which alone would import pyplot.
    program = (
        "import sys, matplotlib as m; before = m.rcParams.copy(); from safelight import plots;"
        "plots.plot_history({'loss': [1, 2]})._repr_png_();"
        "assert 'matplotlib.pyplot' not in sys.modules;"
        "assert all(dict.__getitem__(m.rcParams, k) == dict.__getitem__(before, k) for k in before)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=SECONDS)


def test_threads_draw_the_same_picture():
    wanted = plots.plot_history(HISTORY)._repr_png_()
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(plots.plot_history(HISTORY)._repr_png_()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 4


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_save_figure_writes_whole_files(tmp_path, ending):
    path = plots.save_figure(plots.plot_history(HISTORY), tmp_path / f"history.{ending}", dpi=40)
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
