import pytest

from safelight import bundles


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


def test_a_folder_is_whole_or_as_it_was(tmp_path):
    folder = tmp_path / "export"
    bundles.with_folder(folder, lambda work: (work / "a").write_text("first"))

    def fail(work):
        (work / "a").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        bundles.with_folder(folder, fail)
    assert (folder / "a").read_text() == "first"
    bundles.with_folder(folder, lambda work: (work / "b").write_text("second"))
    assert [file.name for file in folder.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [folder]
