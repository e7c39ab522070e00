"""Which pictures belong together: by a regular expression, a table or a mapping."""

import numpy as np
import pytest

from safelight.groupings import read_rule


def find_groups(files, rule):
    return read_rule(rule).number(files)


FILES = ("a/p1_x.png", "a/p2_x.png", "b/p1_y.png", "b/loose.png", "b/loose2.png", "a/p2_z.png")
GROUPS = [0, 1, 0, 2, 3, 1]


@pytest.mark.parametrize("rule", [r"/(p[0-9]+|)", r"(?:a|b)/(p\d)?", r"(p\d|$)"])
def test_a_regular_expression_names_groups_across_classes(rule):
    found = find_groups(FILES, rule)
    assert found.tolist() == GROUPS
    assert found.dtype == np.int64


@pytest.mark.parametrize("kind", [dict, "table"])
def test_a_table_and_a_mapping_say_the_same(tmp_path, kind):
    names = ["patient, one", "ünd zwei", "patient, one", "", "", "ünd zwei"]
    if kind is dict:
        assert find_groups(FILES, dict(zip(FILES, names, strict=True))).tolist() == GROUPS
        return
    path = tmp_path / "Groups.CSV"
    # As spreadsheets write it on Windows: a mark in front, CR LF, more columns, other slashes.
    rows = [f'x,{f.replace("/", chr(92))},"{g}"\r\n' for f, g in zip(FILES, names, strict=True)]
    path.write_text("\ufeffage,file,group\r\n" + "".join(rows) + "x,gone.png,q\r\n", newline="")
    assert find_groups(FILES, path).tolist() == find_groups(FILES, str(path)).tolist() == GROUPS


def test_numbers_are_names_too():
    """0 is somebody's number, not nobody's."""
    assert find_groups(("a", "b", "c", "d"), {"a": 0, "b": 1, "c": 0, "d": None}).tolist() == [
        0,
        1,
        0,
        2,
    ]


def test_a_name_is_looked_up_as_it_is_written_first(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("file,group\na\\xff.png,1\n./b/c.png,2\nb\\d.png,2\n")
    assert find_groups(("a\\xff.png", "b/c.png", "b/d.png"), path).tolist() == [0, 1, 1]


def test_a_picture_that_stands_alone_is_in_no_other_ones_group():
    found = find_groups(("a", "b", "c", "d"), {"a": "0", "b": "", "c": "0", "d": ""})
    assert found.tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("(p", "is no regular expression"),
        ("p[0-9]", "has 0 pairs of parentheses"),
        ("(p)([0-9])", "has 2 pairs"),
        (r"(p\d)", "says nothing of 2 of 6 pictures, such as b/loose.png"),
        (r"(.*)", "each a group of its own"),
        (r"(\.png)", r"all in one group .*'\.png'"),
        ({"a/p1_x.png": "1"}, "says nothing of 5 of 6"),
        ("none.csv", "cannot be read as a table .No such file"),
    ],
)
def test_a_rule_that_tells_no_groups_is_refused(rule, words):
    with pytest.raises(ValueError, match=words):
        find_groups(FILES, rule)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,patient\na,1\n", "line 2 has no group; expected the columns file and group"),
        ("", "says nothing of 2 of 2"),
        ("file,group\na\nb,1\n", "line 2 has no group"),
        ("file,group\na,1\nb,2\na,2\n", "line 4 puts a into '2', an earlier one into '1'"),
        ('file,group\na,"1\n', "cannot be read as a table"),
    ],
)
def test_a_table_that_says_something_else_is_refused(tmp_path, text, words):
    path = tmp_path / "groups.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        find_groups(("a", "b"), path)


def test_a_table_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        find_groups(("a",), path)
