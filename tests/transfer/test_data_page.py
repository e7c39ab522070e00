"""The page says what is so, and names show as they are, whatever they hold."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from safelight.neighbours import check_neighbours
from safelight.transfer.data_page import advise_on_neighbours, escape, render_data_page

NASTY = [
    "a|b.png", "`code`.png", "``.png", "a\nb.png", "# title", "1. one", "2) two", "- - dash",
    "*bold*.png", "_it_ a_b_c.png", "<b>x</b>.png", "![x](http://a.b/c)", "[x]: /url", "a\\|b",
    "\x1b[31mred\x07.png", " two  spaces ", "&amp;.png", "\u202egnp.png", "\udcff.png", "~~no~~",
    "$x$", ":smile:", "www.a.org", "me@a.org", "", "=", "+", "---", "12", "日本 é.png", "\\",
]  # fmt: skip
TEXT = st.text(st.characters(), max_size=12)


def visible(name):
    """What a reader should see: all that is printable, and Python's escapes of the rest."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    return re.sub(r"^ | $| (?= )", r"\\x20", text)


def text_of(token):
    return "".join(child.content for child in token.children)


def inlines(markdown):
    return [
        t for t in MarkdownIt("commonmark").enable("table").parse(markdown) if t.type == "inline"
    ]


def section(page, title):
    return page.split(f"## {title}\n\n")[1].split("\n\n## ")[0]


def make_config(**dataset):
    return {
        "dataset": {
            "name": "d", "num_images": 12, "class_names": ["cat", "dog"], "problems": [],
            "duplicates": 0, "conflicting_duplicates": [], **dataset,
        },
        "split": {"strategy": "stratified"},
        "settings": {"class_weight": None},
    }  # fmt: skip


def make_data(**data):
    return {
        "num_per_class": {"cat": 5, "dog": 3},
        "num_per_part": {
            "train": {"cat": 5, "dog": 3},
            "validation": {"cat": 1, "dog": 1},
            "test": {"cat": 1, "dog": 1},
        },
        "imbalance": 5 / 3,
        "neighbours": None,
        "straddling": [],
        "doubt": 0.05,
        "suspects": [],
        **data,
    }


def suspect(file="a.png", label="cat"):
    return {"file": file, "label": label, "prediction": "dog", "probability": 0.0123}


def series(**changes):
    labels = [0, 0, 0, 0, 1, 1, 1, 1] * 10
    found = check_neighbours([str(i) for i in range(80)], labels).to_dict()
    return {**found, **changes}


@pytest.mark.parametrize("name", NASTY)
def test_nasty_names_are_text_in_a_list_and_in_a_table(name):
    check_shown(name)


@given(TEXT)
def test_any_name_is_text_in_a_list_and_in_a_table(name):
    check_shown(name)


def check_shown(name):
    page = render_data_page(
        make_config(problems=[name], class_names=[name, "dog"]),
        make_data(suspects=[suspect(file=name, label=name)]),
    )
    found = [text_of(token) for token in inlines(section(page, "Labels to look at again"))]
    assert found[5:9] == [visible(name), visible(name), "dog", "1.2 %"]
    found = inlines(section(page, "Files left out"))
    assert [text_of(token) for token in found[1:]] == [visible(name)] * bool(name)
    assert {child.type for token in found[1:] for child in token.children} <= {
        "text",
        "text_special",
    }
    assert [t.tag for t in MarkdownIt().parse(page) if t.type == "heading_open"] == ["h1"] + [
        "h2"
    ] * 6


def test_common_names_stay_readable_in_the_source():
    for name in ("defective/cell_0001.png", "IMG 12-3 (1).jpg", "1.jpg", "a.png: no picture"):
        assert escape(name) == name


def test_where_all_is_well_each_section_is_a_line():
    page = render_data_page(make_config(), make_data())
    assert "Nothing here needs a second look." in page
    for title in ("Files left out", "The same picture twice", "Labels to look at again"):
        text = section(page, title).strip()
        assert "\n" not in text
        assert text.startswith("No")
    assert "nothing can be said" in section(page, "Neighbours")
    assert "--class-weight" not in page
    assert "suspects.png" not in page


def test_the_table_of_classes_has_each_number():
    cells = [text_of(t) for t in inlines(section(render_data_page(make_config(), make_data()),
                                                 "Pictures per class"))]  # fmt: skip
    assert cells[:4] == ["class", "train", "validation", "test"]
    assert cells[4:12] == ["cat", "5", "1", "1", "dog", "3", "1", "1"]
    assert "1.7 times" in cells[12]


@pytest.mark.parametrize(
    ("imbalance", "weight", "suggested"),
    [(3.0, None, False), (3.1, None, True), (9, "balanced", False)],
)
def test_weights_are_suggested_where_classes_are_far_apart(imbalance, weight, suggested):
    config = make_config()
    config["settings"]["class_weight"] = weight
    page = render_data_page(config, make_data(imbalance=imbalance))
    assert ("try `--class-weight balanced`" in page) == suggested


def test_copies_are_told_by_what_they_do():
    page = render_data_page(
        make_config(duplicates=3, conflicting_duplicates=[["cat/a.png", "dog/b.png"]]),
        make_data(straddling=[["train/c.png", "test/d.png"]]),
    )
    text = section(page, "The same picture twice")
    assert text.startswith("3 groups are the same picture")
    assert "1 group is in different classes" in text
    assert text.index("- cat/a.png = dog/b.png") < text.index("- train/c.png = test/d.png")
    assert "Worth a look: copies." in page


@pytest.mark.parametrize(
    ("split", "torn", "rule", "expected"),
    [
        ("stratified", 0, "", "Not told: `--groups` says it."),
        (
            "stratified",
            0,
            r"/(p\d+)_",
            r"Known, told by `--groups /(p\d+)_`; this split",
        ),
        ("grouped", 0, r"/([a-z]+)_", "in one part, told by `--groups /([a-z]+)_`; intervals"),
        ("grouped", 0, "(`x)", "told by `` --groups (`x) ``; intervals"),
        ("given-grouped", 0, "g.csv", "No group is in two parts"),
        ("given-grouped", 1, "g.csv", "**Beware:** 1 group has pictures in several parts"),
    ],
)
def test_what_belongs_together_is_told_as_it_is_typed(split, torn, rule, expected):
    config = make_config(**({"grouped_by": rule} if rule else {}))
    page = render_data_page({**config, "split": {"strategy": split}}, make_data(torn_groups=torn))
    assert expected in section(page, "What belongs together")
    assert ("groups that the folders part" in page) == bool(torn)


def test_groups_that_part_series_are_no_cure():
    for apart, words in ((0.9, "the groups part 90 % of them"), (0.1, "")):
        advice = advise_on_neighbours(series(apart=apart), split="grouped", has_groups=True)
        assert (words in advice) if words else advice == ""


@pytest.mark.parametrize(
    ("split", "changes", "has_groups", "expected"),
    [
        ("stratified", {}, True, "--split grouped"),
        ("stratified", {}, False, "--groups"),
        ("stratified", {"is_sorted": True}, False, "if the pictures were taken in that order"),
        ("stratified", {"is_blocked": False}, True, ""),
        ("grouped", {}, True, ""),
        ("given", {}, False, ""),
    ],
)
def test_advice_is_one_sentence_where_a_random_split_tears_series_apart(
    split, changes, has_groups, expected
):
    found = series(**changes)
    advice = advise_on_neighbours(found, split=split, has_groups=has_groups)
    assert expected in advice
    assert bool(advice) == bool(expected)
    assert advice.count(". ") == 0
    if advice:
        assert advice.startswith(f"{100 * found['agreement']:.0f} % of pictures")
    config = make_config()
    config["split"]["strategy"] = split
    page = render_data_page(config, make_data(neighbours={**found, "advice": advice}))
    assert ("Beware" in page) == ("Worth a look: neighbours." in page) == bool(advice)
    assert advice_of_none(split) == ""


def advice_of_none(split):
    return advise_on_neighbours(None, split=split)


def test_labels_that_were_not_checked_are_not_called_sound():
    data = make_data()
    del data["suspects"], data["doubt"]
    assert section(render_data_page(make_config(), data), "Labels to look at again").startswith(
        "Not"
    )


def test_suspects_come_with_their_picture_and_long_lists_end():
    page = render_data_page(
        make_config(problems=[f"{i}.png: empty" for i in range(120)]),
        make_data(suspects=[suspect(file=f"{i}.png") for i in range(51)]),
    )
    assert "](pictures/suspects.png)" in page
    assert "| 49.png | cat | dog | 1.2 % |" in page
    assert "| 50.png" not in page
    assert "... and 1 more, in metrics.json." in page
    assert "... and 70 more, in config.json." in page


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "pets"])
@pytest.mark.parametrize("number", [0, 3])
def test_near_copies_are_not_ruled_out_where_nobody_looked_for_them(name, number):
    page = render_data_page(make_config(name=name, duplicates=number), make_data())
    text = section(page, "The same picture twice")
    assert ("nearly" in text) == (name == "pets")
    assert ("only exact copies were looked for" in text) == (name != "pets")
