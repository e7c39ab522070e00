import os
from pathlib import Path

import pytest

from safelight import bundles


def write(folder, name, text, *, overwrite=True):
    """An export of one file."""

    def fill(work):
        (work / name).write_text(text)

    bundles.with_folder(folder, fill, mark="a", names={"b"}, overwrite=overwrite)


def test_only_an_export_of_its_kind_is_replaced_and_only_if_asked(tmp_path):
    names = {"a.txt"}

    def check(folder, **more):
        bundles.check_folder(folder, mark="mark.json", names=names, **more)

    folder = tmp_path / "export"
    check(folder)
    folder.mkdir()
    check(folder)
    (folder / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds a\.txt, which no export wrote"):
        check(folder, overwrite=True)
    (folder / "mark.json").write_text("{}")
    with pytest.raises(ValueError, match="--overwrite"):
        check(folder)
    check(folder, overwrite=True)
    (folder / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        check(folder, overwrite=True)
    with pytest.raises(ValueError, match="is a file"):
        check(folder / "a.txt")
    with pytest.raises(ValueError, match="there is no folder"):
        check(tmp_path / "no" / "where")


def test_what_somebody_put_into_a_folder_of_an_export_is_kept(tmp_path):
    folder = tmp_path / "export"

    def check():
        bundles.check_folder(
            folder, mark="mark.json", names={"model/*.pb", "model/empty"}, overwrite=True
        )

    (folder / "model").mkdir(parents=True)
    (folder / "mark.json").write_text("{}")
    (folder / "model" / "a.pb").write_text("")
    (folder / "model" / "empty").mkdir()
    check()
    for name in ("model/thesis.tex", "model/empty/a.pb", "a.pb"):
        (folder / name).write_text("years of work")
        with pytest.raises(ValueError, match=rf"holds {name}, which no export wrote"):
            check()
        (folder / name).unlink()
    (folder / "model" / "more").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ValueError, match="model/more"):
        check()


def test_what_cannot_be_looked_into_is_not_replaced(tmp_path, monkeypatch):
    folder = tmp_path / "export"
    (folder / "model").mkdir(parents=True)
    (folder / "mark.json").write_text("{}")
    real = os.scandir

    def scan(path):
        if Path(path).name == "model":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(ValueError, match=r"model: cannot be read \(Permission denied\)"):
        bundles.check_folder(folder, mark="mark.json", names={"model/*"}, overwrite=True)


def test_a_folder_is_whole_or_as_it_was(tmp_path):
    folder = tmp_path / "export"
    write(folder, "a", "first")

    def fail(work):
        (work / "a").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        bundles.with_folder(folder, fail, mark="a", names={"b"}, overwrite=True)
    assert (folder / "a").read_text() == "first"
    write(folder, "b", "second")
    assert [file.name for file in folder.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [folder]


def test_the_older_one_is_put_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    folder = tmp_path / "export"
    write(folder, "a", "first")
    real = bundles.os.replace

    def replace(source, target):
        if source.name == "new":
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(bundles.os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write(folder, "a", "second")
    assert (folder / "a").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    folder, link = tmp_path / "export", tmp_path / "link"
    write(folder, "a", "first")
    link.symlink_to(folder, target_is_directory=True)
    write(link, "a", "second")
    assert link.is_symlink()
    assert (folder / "a").read_text() == "second"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("came", ["a folder", "a file", "into the export"])
def test_what_came_there_while_an_export_was_made_stays_and_so_does_the_export(
    tmp_path, came, overwrite
):
    folder = tmp_path / "export"
    (tmp_path / "export-2").mkdir()  # a name that is taken
    mine = folder if came == "a file" else folder / "thesis.tex"
    if came == "into the export":
        write(folder, "a", "first")

    def fill(work):
        (work / "a").write_text("second")
        if came != "a file":
            folder.mkdir(exist_ok=True)
        mine.write_text("years of work")

    with pytest.raises(ValueError, match=r"export: .*It came there while .* is (.*) now\.") as told:
        bundles.with_folder(folder, fill, mark="a", names=(), overwrite=overwrite)
    assert mine.read_text() == "years of work"
    kept = tmp_path / "export-3"
    assert str(kept) in str(told.value)
    assert (kept / "a").read_text() == "second"
    assert sorted(tmp_path.iterdir()) == [folder, tmp_path / "export-2", kept]
    if came == "into the export":
        assert (folder / "a").read_text() == "first"


def test_another_export_that_was_quicker_is_replaced_only_if_asked(tmp_path):
    folder = tmp_path / "export"

    def fill(work):
        write(folder, "a", "quick")
        (work / "a").write_text("slow")

    with pytest.raises(ValueError, match=r"holds an export; replace it with --overwrite"):
        bundles.with_folder(folder, fill, mark="a", names={"b"})
    assert (folder / "a").read_text() == "quick"
    bundles.with_folder(folder, fill, mark="a", names={"b"}, overwrite=True)
    assert (folder / "a").read_text() == "slow"
