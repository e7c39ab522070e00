"""The page: whole, closed to the world, true to the run, and never a traceback."""

import base64
import hashlib
import io
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from safelight.report import write_report
from safelight.report.page import render
from safelight.report.probabilities import answered_when_sure
from safelight.report.reading import read_run

VOID = {"meta", "img", "br", "link", "input", "hr", "wbr"}
LOADING = {"src", "href", "srcset", "action", "formaction", "data", "poster", "background", "cite"}
NUMBER = re.compile(r"-?\d+\.\d+")


class Page(HTMLParser):
    """What a browser makes of the page, as far as these tests ask; refuses what does not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.words, self.numbers = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "elements that are never closed"

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style = data
            return
        self.words.append(data)
        if self.open and self.open[-1] == "data":
            value = [found for tag, found in self.elements if tag == "data"][-1]["value"]
            self.numbers.append((float(value), data))

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def all(self, tag):
        return [attributes for found, attributes in self.elements if found == tag]


def page_of(*runs):
    return Page(render([read_run(run.path) for run in runs]))


@pytest.fixture(scope="module", params=["classifier", "vae", "two of a kind", "two kinds"])
def page(request, make_classifier, make_vae):
    if request.param == "classifier":
        return page_of(make_classifier())
    if request.param == "vae":
        return page_of(make_vae())
    if request.param == "two kinds":
        return page_of(make_classifier(), make_vae())
    return page_of(make_classifier("a"), make_classifier("b", skill=1), make_vae(), make_vae("e"))


# --- a page that any browser, reader and printer takes


def test_nothing_is_loaded_from_elsewhere(page):
    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in LOADING
    ]
    assert addresses
    assert all(re.match(r"#|data:image/webp;base64,", address) for address in addresses)
    assert not re.search(r"url\(|@import", page.style)


def test_there_is_no_script(page):
    assert not page.all("script")
    attributes = {name for _, found in page.elements for name in found}
    assert not [name for name in attributes if name.startswith("on")]


def test_the_policy_allows_this_style_and_nothing_else(page):
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    # Attributes of style would be refused by it, and look broken.
    assert not [tag for tag, attributes in page.elements if "style" in attributes]


def test_headings_go_down_one_by_one(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))


def test_ids_are_unique_and_links_lead_to_them(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.all("a")} <= set(ids)
    labels = [each["aria-labelledby"] for _, each in page.elements if "aria-labelledby" in each]
    assert set(labels) <= set(ids)


def test_pictures_drawings_and_tables_say_what_they_are(page):
    assert page.all("html")[0]["lang"] == "en"
    assert all(each["alt"].strip() for each in page.all("img"))
    assert all(each["role"] == "img" and each["aria-label"] for each in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(each.get("scope") in ("row", "col") for each in page.all("th"))


def test_a_page_without_pictures_is_small(make_classifier):
    run = make_classifier()
    for picture in run.pictures:
        picture.unlink()
    assert len(render([read_run(run.path)])) < 80_000


# --- true to the run


def test_every_number_is_rounded_from_the_value_beside_it(page):
    """In per cent or as it is, to as many digits as are shown."""
    assert len(page.numbers) > 30
    for value, shown in page.numbers:
        plain = shown.replace("−", "-").replace(",", "").lstrip("+")
        digits = len(plain.partition(".")[2].partition("e")[0])
        unit = 0.5001 * 10.0**-digits
        if "e" in plain:
            assert float(plain) == pytest.approx(value, rel=0.05)
            continue
        assert min(abs(float(plain) - scale * value) for scale in (1, 100)) <= unit


def flatten(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return {x for each in value for x in flatten(each)}
    return {float(value)} if isinstance(value, int | float) else set()


def test_every_number_is_the_runs_own_or_follows_from_it(make_classifier):
    """Numbers of metrics.json; and counts and shares of counts, which are taken again here."""
    run = make_classifier()
    reading = read_run(run.path)
    own = flatten(run.metrics) | flatten(run.config) | {3.0}
    own |= {x for column in run.history.values() for x in column}
    counts = np.array(run.metrics["confusion_matrix"])
    own |= set((counts / counts.sum(1, keepdims=True)).ravel()) | set(counts.ravel())
    own |= {counts.sum(1).max() / counts.sum(), float(counts.sum() - np.trace(counts))}
    accuracy = run.metrics["accuracy"]
    own |= {(accuracy["high"] - accuracy["low"]) / 2}
    for row in answered_when_sure(reading):
        own |= {row.share}
        own |= {row.accuracy.value, row.accuracy.low, row.accuracy.high} if row.accuracy else set()
    table = run.predictions
    own |= {max(float(table[f"p({name})"][i]) for name in reading.class_names) for i in range(60)}
    page = page_of(run)
    strange = [
        (value, shown)
        for value, shown in page.numbers
        if min(abs(value - x) for x in own) > 1e-6 and value != round(value)
    ]
    # What is left are the bins of the reliability diagram, which has its own test.
    bins = {value for value, _ in strange}
    assert len(bins) <= 4 * 10


def test_the_first_number_is_the_accuracy_and_its_interval_follows(make_classifier):
    run = make_classifier()
    accuracy = run.metrics["accuracy"]
    text = page_of(run).text
    shown = [f"{100 * accuracy[end]:.1f}" for end in ("value", "low", "high")]
    assert f"{shown[0]} %" in text
    assert f"95 % interval {shown[1]} to {shown[2]} %" in text


def test_a_mean_over_splits_comes_before_the_first_split(make_classifier):
    run = make_classifier()
    mean = {"value": 0.5, "low": 0.4, "high": 0.6}
    splits = {"num_splits": 3, "mean": {"accuracy": mean}, "scores": {"accuracy": [0.4, 0.5, 0.6]}}
    run.write_metrics({**run.metrics, "splits": {**splits, "num_folds": None, "method": "m"}})
    assert "50.0 % right on average over 3 random splits 95 % interval 40.0 to 60.0 %" in (
        page_of(run).text
    )


def test_pictures_keep_every_pixel(make_classifier):
    run = make_classifier()
    shown = [each["src"].partition(",")[2] for each in page_of(run).all("img")]
    decoded = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in shown]
    kept = [
        np.asarray(Image.open(run.path / "pictures" / f"{n}.png")) for n in ("mistakes", "suspects")
    ]
    assert len(decoded) == 2
    assert all(np.array_equal(a, b) for a, b in zip(decoded, kept, strict=True))


@pytest.mark.parametrize(
    ("name", "said"),
    [("explanations", "Why it says so"), ("reasons", "What it goes by where it is right")],
)
def test_explanations_are_shown_once_where_the_run_has_them(make_classifier, name, said):
    run = make_classifier()
    before = page_of(run)
    assert said not in before.text
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(run.picture_path(name))
    after = page_of(run)
    assert after.text.count(said) == 1
    assert len(after.all("img")) == len(before.all("img")) + 1


# --- nothing in a run is trusted


def test_names_are_shown_and_never_markup(make_classifier, hostile):
    files = [f"{hostile[i % 3]}/{i}.png" for i in range(60)]
    plain = page_of(make_classifier(files=[f"{i % 3}/{i}.png" for i in range(60)]))
    page = page_of(make_classifier("p<b>x", names=hostile, files=files, dataset=hostile[0]))
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in plain.elements}
    assert {n for _, a in page.elements for n in a} == {n for _, a in plain.elements for n in a}
    assert all(page.text.count(name) for name in hostile[:2])
    assert "p<b>x" in page.text
    # What turns text around or breaks lines is spelt out.
    assert "a&b\\u202e|`c`\\n{{7*7}}" in page.text
    assert "\u202e" not in page.text


def texts_of(value):
    """Every text in a run is somebody else's."""
    if isinstance(value, dict):
        return {name: texts_of(item) for name, item in value.items()}
    if isinstance(value, list):
        return [texts_of(item) for item in value]
    return f"<b onclick=x>{value}" if isinstance(value, str) else value


@pytest.mark.parametrize("kind", ["classifier", "vae"])
def test_every_text_of_a_run_is_escaped(kind, make_classifier, make_vae):
    run = make_classifier() if kind == "classifier" else make_vae()
    plain = page_of(run)
    config = {**texts_of(run.config), "kind": run.config["kind"]}
    (run.path / "config.json").write_text(json.dumps(config))
    for name in ("metrics", "environment"):
        (run.path / f"{name}.json").write_text(json.dumps(texts_of(getattr(run, name))))
    page = page_of(run)
    assert not page.all("b")
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements} | {"data", "bdi"}


# --- missing and damaged pieces are sentences


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("metrics.json", "the training did not finish"),
        ("predictions.csv", "predictions.csv: is missing"),
        ("history.csv", "history.csv: is missing"),
        ("environment.json", "There is no environment.json"),
        ("pictures/mistakes.png", "The picture mistakes.png is missing"),
        ("pictures/suspects.png", "The picture suspects.png is missing"),
    ],
)
def test_what_is_missing_is_said(make_classifier, name, sentence):
    run = make_classifier()
    (run.path / name).unlink()
    page = page_of(run)
    assert sentence in page.text
    assert str(run.path) not in page.text


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"<svg onload=alert(1)>", None])
def test_what_is_no_picture_is_left_out(make_classifier, content):
    run = make_classifier()
    path = run.path / "pictures" / "mistakes.png"
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    page = page_of(run)
    assert len(page.all("img")) == 1
    assert "The picture mistakes.png is left out: it cannot be read" in page.text


STRANGE = [None, "x", 3, -1, True, 1e308, [], [1], ["x"], {}, {"value": "x"}, {"a": [None]}, [[]]]


@pytest.mark.parametrize("kind", ["classifier", "vae"])
@pytest.mark.parametrize("file", ["metrics", "config", "environment"])
def test_a_damaged_file_is_never_a_traceback(kind, file, make_classifier, make_vae):
    """Every piece of every file is replaced in turn by things that should not be there."""
    run = make_classifier() if kind == "classifier" else make_vae()
    for picture in run.pictures:
        picture.unlink()
    path = run.path / f"{file}.json"
    whole = json.loads(path.read_text())
    places = [(key, None) for key in whole if key not in ("kind", "safelight_run")]
    places += [
        (key, inner) for key, found in whole.items() if isinstance(found, dict) for inner in found
    ]
    for number, (key, inner) in enumerate(places):
        strange = STRANGE[number % len(STRANGE)]
        changed = {**whole, key: strange if inner is None else {**whole[key], inner: strange}}
        path.write_text(json.dumps(changed))
        assert page_of(run).all("h1")


# --- the file


def test_the_page_lies_in_the_folder_of_the_run(make_classifier):
    run = make_classifier()
    path = write_report([run.path])
    assert path == run.path / "report.html"
    first = path.read_text()
    assert write_report([run.path]) == path
    assert path.read_text() == first


def test_somebody_elses_file_is_not_overwritten(make_classifier, tmp_path):
    run, mine = make_classifier(), tmp_path / "index.html"
    mine.write_text("<h1>mine</h1>")
    with pytest.raises(ValueError, match=r"index\.html: holds something else than a report"):
        write_report([run.path], mine)
    assert mine.read_text() == "<h1>mine</h1>"


def test_several_runs_need_a_place(make_classifier):
    runs = [make_classifier("a").path, make_classifier("b").path]
    with pytest.raises(ValueError, match="say where their page is to be, --output"):
        write_report(runs)


def test_a_folder_that_is_no_run_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="not a run"):
        write_report([tmp_path])
