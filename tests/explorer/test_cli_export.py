"""`safelight export` as it is typed."""

import json
import shutil

import pytest

from safelight import datasets
from safelight.cli import serve
from safelight.runs import Run


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
    other = Run.create(tmp_path / "run")
    other.write_config({"kind": "transfer", "dataset": {}, "split": {}})
    other.model_path.write_bytes(b"")
    code, _, err = call("export", other.path, "--web", tmp_path / "page", early=True)
    assert code == 2
    assert "'transfer'" in err


@pytest.fixture
def moved(run, photos, tmp_path):
    """A run beside a copy of its pictures, where it looks for them."""
    shutil.copytree(run.path, tmp_path / "run")
    shutil.copytree(photos, tmp_path / "clouds")
    config = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    config["dataset"]["source"] = "../clouds"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config), "utf-8")
    return Run.open(tmp_path / "run")


def lose_one_learned_from(run, folder):
    learned = set(run.config["split"]["digests"]["train"])
    dataset = datasets.from_directory(folder)
    number = next(i for i, digest in enumerate(dataset.digests) if digest[:16] in learned)
    (folder / dataset.files[number]).unlink()


@pytest.mark.parametrize("fault", ["one is gone", "a class has another name", "all are gone"])
def test_a_page_is_served_without_pictures_where_they_are_gone(
    moved, runtime, tmp_path, capsys, fault
):
    clouds = tmp_path / "clouds"
    if fault == "one is gone":
        lose_one_learned_from(moved, clouds)
    elif fault == "all are gone":
        shutil.rmtree(clouds)
    else:
        (clouds / "green").rename(clouds / "verdant")
    page = serve._export(moved, tmp_path / "page", None)
    assert '"points": null' in (page / "data.js").read_text("utf-8")
    said = " ".join(capsys.readouterr().err.split())
    assert "no training pictures are shown" in said
    if fault != "all are gone":
        with pytest.raises(ValueError, match="clouds"):
            serve._export(moved, tmp_path / "other", str(clouds))


def test_a_page_is_served_with_the_pictures_that_are_there(moved, runtime, tmp_path, capsys):
    page = serve._export(moved, tmp_path / "page", None)
    assert '"points": null' not in (page / "data.js").read_text("utf-8")
    assert "no training pictures" not in capsys.readouterr().err
