"""The page in a cell of a notebook."""

import os

import pytest

from safelight import explorer


@pytest.fixture
def page(run, runtime, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return explorer.export_web(run.path, "pages of mine").parent


def test_the_frame_shows_one_file_below_the_notebook(page):
    frame = explorer.show(page, height=700)
    assert (frame.src, frame.width, frame.height) == ("pages of mine/notebook.html", "100%", 700)
    whole = (page / "notebook.html").read_text("utf-8")
    assert "explorerFiles" in whole
    assert "src=" not in whole.partition("<body>")[0]


def test_it_is_written_anew_where_the_export_is_newer(run, page):
    explorer.show(page)
    (page / "notebook.html").write_text("older")
    explorer.show(page)
    assert (page / "notebook.html").read_text() == "older"
    later = (page / "index.html").stat().st_mtime + 10
    os.utime(page / "index.html", (later, later))
    explorer.show(page)
    assert (page / "notebook.html").read_text() != "older"
    explorer.export_web(run.path, page, overwrite=True)  # with the file of the notebook in it


def test_a_folder_that_jupyter_cannot_serve_is_told(page, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is not below"):
        explorer.show(tmp_path / page)


def test_a_folder_of_something_else_is_told(tmp_path):
    with pytest.raises(ValueError, match="is no exported page"):
        explorer.show(tmp_path)
