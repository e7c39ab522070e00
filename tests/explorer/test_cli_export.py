"""`safelight export` as it is typed."""

import json
import shutil

import pytest


def test_it_says_where_the_page_is_and_how_to_look_at_it(call, run, runtime, tmp_path):
    page = tmp_path / "page"
    code, out, err = call("export", run.path, "--web", page, "--num-pictures", 9)
    assert code == 0, err
    assert str(page / "index.html") in out
    assert f"python -m http.server --directory {page}" in out
    assert '"shape": [9, 5]' in (page / "data.js").read_text()


def test_a_folder_that_is_taken_is_told_before_keras_loads(call, run, tmp_path):
    page = tmp_path / "page"
    page.mkdir()
    (page / "thesis.tex").write_text("years of work")
    code, _, err = call("export", run.path, "--web", page, "--overwrite", early=True)
    assert code == 2
    assert "thesis.tex" in err
    assert "Traceback" not in err


def test_an_export_is_replaced_with_overwrite_alone(call, run, runtime, tmp_path):
    page = tmp_path / "page"
    arguments = ("export", run.path, "--web", page, "--num-pictures", 0)
    assert call(*arguments)[0] == 0
    code, _, err = call(*arguments, early=True)
    assert code == 2
    assert "--overwrite" in err
    assert call(*arguments, "--overwrite")[0] == 0


def test_a_run_without_its_pictures_can_be_exported_without_them(call, run, runtime, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run.path, moved)
    config = moved / "config.json"
    config.write_text(config.read_text("utf-8").replace("clouds", "gone"), "utf-8")
    code, _, err = call("export", moved, "--web", tmp_path / "page", early=True)
    assert code == 2
    assert "--num-pictures 0" in err
    assert call("export", moved, "--web", tmp_path / "page", "--num-pictures", 0)[0] == 0


def test_a_gan_is_a_page_too_and_needs_no_pictures(call, make_game, runtime, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(make_game().path, moved)
    config = moved / "config.json"
    config.write_text(config.read_text("utf-8").replace("clouds", "gone"), "utf-8")
    code, out, err = call("export", moved, "--web", tmp_path / "page")
    assert code == 0, err
    assert "index.html" in out
    assert '"kl": null' in (tmp_path / "page" / "data.js").read_text()


@pytest.mark.parametrize(
    "change",
    [{"dataset": {}}, {"settings": {}}, {"settings": 3}, {"settings": {"seed": 1.5}}],
)
def test_a_damaged_run_of_a_gan_is_one_line(call, make_game, runtime, tmp_path, change):
    moved = tmp_path / "moved"
    shutil.copytree(make_game().path, moved)
    config = json.loads((moved / "config.json").read_text("utf-8"))
    (moved / "config.json").write_text(json.dumps({**config, **change}), "utf-8")
    code, _, err = call("export", moved, "--web", tmp_path / "page")
    assert (code, "Traceback" in err) in ((2, False), (0, False))
    assert code == 0 or "moved" in err


def test_a_run_of_another_kind_is_told(call, tmp_path):
    from safelight.runs import Run

    other = Run.create(tmp_path / "run")
    other.write_config({"kind": "transfer", "dataset": {}, "split": {}})
    other.model_path.write_bytes(b"")
    code, _, err = call("export", other.path, "--web", tmp_path / "page", early=True)
    assert code == 2
    assert "'transfer'" in err
