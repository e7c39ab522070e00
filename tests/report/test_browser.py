"""The page in Chromium: nobody is kept from using it, and it asks for nothing."""

import pytest

from safelight.report import write_report

pytestmark = pytest.mark.browser

# Of every text and every mark, how much it stands out from what is behind it (WCAG's contrast).
# axe-core does not look behind texts of drawings, nor at marks.
CONTRASTS = """() => {
  const parse = (c) => ((v) => (v.length > 3 ? v : [...v, 1]))(c.match(/[\\d.]+/g).map(Number));
  const lay = (ground, [r, g, b, a]) => [r, g, b].map((v, i) => a * v + (1 - a) * ground[i]);
  const light = (rgb) => rgb.map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const compare = (...colours) => {
    const [dark, bright] = colours.map(light).sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  const paint = (e, what) => {
    const style = getComputedStyle(e);
    if (style[what] === "none") return [0, 0, 0, 0];
    const [r, g, b, a] = parse(style[what]);
    return [r, g, b, a * (style[what + "Opacity"] ?? 1)];
  };
  const isBehind = (rectangle, e) => {
    const [a, b] = [rectangle, e].map((each) => each.getBoundingClientRect());
    const [x, y] = [(b.left + b.right) / 2, (b.top + b.bottom) / 2];
    return a.left <= x && x <= a.right && a.top <= y && y <= a.bottom &&
      rectangle.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING;
  };
  const ground = (e) => {
    const around = [];
    for (let each = e; each; each = each.parentElement) around.unshift(each);
    const layers = around.map((each) => paint(each, "backgroundColor"));
    const below = [...(e.closest("svg")?.querySelectorAll("rect") ?? [])];
    layers.push(...below.filter((each) => isBehind(each, e)).map((each) => paint(each, "fill")));
    return layers.reduce(lay, [255, 255, 255]);
  };
  const measure = (e, ...paints) => {
    const behind = ground(e), colours = paints.map((what) => lay(behind, paint(e, what)));
    return [Math.max(...colours.map((each) => compare(each, behind))), e.outerHTML.slice(0, 160)];
  };
  const all = (selector) => [...document.querySelectorAll(selector)];
  const speaks = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  const marks = ".mark, .dot, .line, .bar, .whisker, .value-line, .reference, .axis";
  return {
    words: all("body *:not(svg *)").filter(speaks).map((e) => measure(e, "color")),
    labels: all("svg text").map((e) => measure(e, "fill")),
    marks: all(marks).map((e) => measure(e, "fill", "stroke")),
  };
}"""
HARM = """() => {
  const one = (selector) => document.querySelector(selector), svg = one("svg");
  one("img").removeAttribute("alt");
  document.documentElement.removeAttribute("lang");
  document.querySelectorAll(".scroll").forEach((each) => each.removeAttribute("tabindex"));
  one("h2").outerHTML = "<h4>Numbers</h4>";
  svg.removeAttribute("aria-label");
  svg.querySelector("title").remove();
  for (const each of [one(".kicker"), svg.querySelector("text"), svg.querySelector(".mark")]) {
    Object.assign(each.style, { color: "#ccc", fill: "#ccc", stroke: "#ccc" });
  }
}"""


@pytest.fixture(scope="module")
def reports(make_classifier, make_vae, tmp_path_factory):
    """A page of each kind, by name."""
    classifier = make_classifier()
    mean = {"value": 0.5, "low": 0.4, "high": 0.6, "confidence": 0.95}
    splits = {"num_splits": 3, "mean": {"accuracy": mean}, "scores": {"accuracy": [0.4, 0.5, 0.6]}}
    classifier.write_metrics({**classifier.metrics, "splits": splits})
    runs = {
        "classifier": [classifier],
        "vae": [make_vae()],
        "side by side": [make_vae(), make_vae("other", shift=1.0)],
    }
    folder = tmp_path_factory.mktemp("reports")
    return {
        name: write_report([run.path for run in some], folder / f"{name}.html")
        for name, some in runs.items()
    }


@pytest.fixture
def visit(browser, reports):
    """Opens a report, all of it unfolded; notes what it asks for and complains of."""
    pages = []

    def go(name, **options):
        pages.append(page := browser.new_page(**options))
        page.asked, page.wrong = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.wrong.append(message.text))
        page.goto(reports[name].as_uri())
        page.evaluate(
            "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
        )
        return page

    yield go
    for page in pages:
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["classifier", "vae", "side by side"])
def test_nobody_is_kept_from_using_it(visit, faults, name, width, scheme):
    page = visit(name, viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrasts = page.evaluate(CONTRASTS)
    for kind, least in (("words", 4.5), ("labels", 4.5), ("marks", 3)):
        assert len(contrasts[kind]) > 10
        assert min(contrasts[kind])[0] >= least, sorted(contrasts[kind])[:3]


def test_what_would_keep_them_is_found(visit, faults):
    page = visit("vae", viewport={"width": 390, "height": 844})
    page.evaluate(HARM)
    found = {each.partition(",")[0] for each in faults(page)}
    assert found == {
        "critical: image-alt", "moderate: heading-order", "serious: color-contrast",
        "serious: html-has-lang", "serious: scrollable-region-focusable", "serious: svg-img-alt",
    }  # fmt: skip
    contrasts = page.evaluate(CONTRASTS)
    assert [min(contrasts[kind])[0] < 3 for kind in ("words", "labels", "marks")] == [True] * 3


def test_it_asks_for_nothing_outside_its_file(visit, reports):
    for name, path in reports.items():
        page = visit(name)
        assert [url for url in page.asked if not url.startswith("data:image/")] == [path.as_uri()]
        assert page.wrong == []


def test_on_a_phone_facts_and_first_numbers_are_in_sight(visit):
    """Only large tables and pictures scroll sideways; 320 pixels are what WCAG asks for."""
    for width in (320, 390):
        page = visit("classifier", viewport={"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        facts = "[...document.querySelectorAll('dd')].map((each) => each.clientWidth)"
        assert min(page.evaluate(facts)) > 0.8 * width
        table = "document.querySelector('[aria-label^=\"Table: On the test part\"]')"
        assert page.evaluate(f"{table}.scrollWidth <= {table}.clientWidth")
