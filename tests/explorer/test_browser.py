"""The page in Chromium: what it decodes, where it goes, and that nobody else is asked."""

import base64
import functools
import hashlib
import http.server
import shutil
import threading

import numpy as np
import pytest

from safelight import assets, explorer
from safelight.explorer.notebook import inline
from safelight.gan import experiment as games
from safelight.vae import experiment
from safelight.vae.latent_paths import linear_path, spherical_path

pytestmark = [
    pytest.mark.browser,
    pytest.mark.assets,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
]
SECONDS = 120_000  # in milliseconds; a busy machine takes its time
PIXELS = """() => {
  const { width, height } = picture;
  return [...picture.getContext("2d").getImageData(0, 0, width, height).data];
}"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Says nothing."""


@pytest.fixture(scope="module")
def exported(make_run, make_game, tmp_path_factory):
    """Folders of conditional and unconditional models, below one that is served."""
    if "onnxruntime-web" not in [row.name for row in assets.list_assets() if row.cached]:
        pytest.skip("onnxruntime-web is not here: safelight assets fetch onnxruntime-web")
    root = tmp_path_factory.mktemp("served")
    runs = {"plain": make_run(), "told": make_run(conditional=True, second_latent_dim=2)}
    played = {"game": make_game(conditional=True), "both": make_game(autoencoder=True)}
    for name, run in {**runs, **played}.items():
        explorer.export_web(run.path, root / name)
    handler = functools.partial(_Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        models = {name: experiment.load_vae(run) for name, run in runs.items()}
        models |= {name: games.load_gan(run) for name, run in played.items()}
        yield root, f"http://127.0.0.1:{server.server_port}", models
        server.shutdown()


@pytest.fixture
def visit(browser, exported):
    """Opens a page and waits until it decodes; notes all that it asks for and complains of."""
    _, address, _ = exported
    contexts = []

    def go(name="plain", place=None, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(SECONDS)
        page.asked, page.wrong = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda message: page.wrong.append(message.text))
        page.goto(place or f"{address}/{name}/")
        page.wait_for_selector("body[data-ready]")
        return page

    yield go
    for context in contexts:
        context.close()


def latents(page):
    return np.array(page.evaluate("[...explorer.state.z]"), "float32")


def settle(page):
    """Waits until what was asked for last is drawn."""
    page.evaluate("""new Promise((done) => {
      const step = (left) => (left ? requestAnimationFrame(() => step(left - 1)) : done());
      step(5);
    })""")


def check_picture(page, model, label=None):
    """The numbers of the page's picture are Keras' own, and its pixels these numbers."""
    settle(page)
    z = np.zeros((1, model.latent_dim), "float32")
    seen = latents(page)
    z[0, : len(seen)] = seen
    decode = getattr(model, "decode_all", model.decode)  # a GAN's gives an array
    expected = decode(z, None if label is None else [label])[0]
    found = np.array(page.evaluate("[...explorer.picture]")).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    drawn = np.reshape(page.evaluate(PIXELS), (*expected.shape[:2], 4))[..., :3]
    assert np.abs(drawn - 255 * np.broadcast_to(found, drawn.shape)).max() <= 0.51
    return found


def corner(page, share_x, share_y):
    """A place on the plane, in pixels of the window."""
    box = page.locator("#over").bounding_box()
    return box["x"] + share_x * box["width"], box["y"] + share_y * box["height"]


def test_dragging_decodes_live_within_the_plane(visit, exported):
    page = visit(viewport={"width": 1280, "height": 1100})
    before, axes = latents(page), page.evaluate("[plane.x, plane.y].map((a) => [...a.direction])")
    seen = set()
    page.mouse.move(*corner(page, 0.5, 0.5))
    page.mouse.down()
    for share in np.linspace(0.5, 0.9, 12):
        page.mouse.move(*corner(page, share, 0.3))
        settle(page)
        seen.add(tuple(page.evaluate(PIXELS)))
    page.mouse.up()
    assert len(seen) >= 10
    check_picture(page, exported[2]["plain"])
    # What was moved lies in the plane, and the point is where the pointer was.
    moved = latents(page) - before
    axes = np.array(axes)
    across = moved - np.linalg.lstsq(axes.T, moved, rcond=None)[0] @ axes
    assert np.abs(across).max() < 1e-5
    assert np.abs(moved).max() > 0.1
    low, high = (np.array(page.evaluate(f"plane.{end}")) for end in ("low", "high"))
    middle = np.array(page.evaluate("[plane.x, plane.y].map((a) => [...a.middle])"))
    place = np.sum((latents(page) - middle) * axes, axis=1)
    np.testing.assert_allclose((place - low) / (high - low), [0.9, 0.7], atol=0.01)


def test_axes_that_are_not_at_right_angles_still_lead_to_the_pointer(visit):
    page = visit(viewport={"width": 1280, "height": 1100})
    page.select_option("#axis-y", "2")  # a principal axis, against one between classes
    page.mouse.click(*corner(page, 0.01, 0.99))
    settle(page)
    place = page.evaluate("[plane.x, plane.y].map((a) => place(a, state.z))")
    low, high = (np.array(page.evaluate(f"plane.{end}")) for end in ("low", "high"))
    np.testing.assert_allclose((np.array(place) - low) / (high - low), 0.01, atol=0.01)


def test_a_conditional_model_of_two_layers_is_told_the_class(visit, exported):
    page = visit("told")
    pictures = []
    for label in (0, 2):
        page.select_option("#class", str(label))
        pictures.append(check_picture(page, exported[2]["told"], label))
    assert np.abs(pictures[0] - pictures[1]).max() > 0.01
    assert "two stochastic layers" in page.inner_text("#about")
    drawn = [tuple(row) for row in page.evaluate("known.draws.map((z) => [...z])")]
    page.click("#draw")
    assert tuple(latents(page).astype("float64")) in drawn


def test_a_game_begins_with_a_draw_and_sorts_units_by_what_they_move(visit, exported):
    page = visit("game")
    assert np.abs(latents(page)).min() > 0
    for label in (0, 2):
        page.select_option("#class", str(label))
        check_picture(page, exported[2]["game"], label)
    shown = [float(words.split()[2]) for words in page.locator(".unit span").all_inner_texts()]
    assert shown == sorted(shown, reverse=True)
    assert "levels" in page.inner_text("#units-words")
    assert page.inner_text("#picture-words") == "Picture"
    assert not page.is_visible("#nearest")


def test_a_vae_gan_has_places_for_its_pictures(visit, exported):
    page = visit("both")
    page.click("#nearest")
    settle(page)
    chosen = page.evaluate("explorer.state.chosen")
    np.testing.assert_array_equal(latents(page), page.evaluate(f"[...points.means[{chosen}]]"))
    check_picture(page, exported[2]["both"])


def test_nothing_outside_the_folder_is_asked_for(visit, exported):
    page = visit()
    for button in ("#draw", "#more", "#middle", "#set-a", "#draw", "#set-b", "#nearest", "#mean"):
        page.click(button)
    page.select_option("#axis-x", "5")
    settle(page)
    inside = (f"{exported[1]}/plain/", f"blob:{exported[1]}/", "data:")
    assert [url for url in page.asked if not url.startswith(inside)] == []
    assert page.wrong == []


@pytest.mark.parametrize("whole", [False, True])
def test_it_opens_from_a_disk_too_in_one_file_or_in_several(visit, exported, tmp_path, whole):
    folder = exported[0] / "plain"
    if whole:
        folder = tmp_path
        (folder / "index.html").write_text(inline(exported[0] / "plain"), "utf-8")
    page = visit(place=(folder / "index.html").as_uri())
    check_picture(page, exported[2]["plain"])
    inside = (folder.as_uri(), "blob:", "data:")
    assert [url for url in page.asked if not url.startswith(inside)] == []
    assert page.wrong == []


def test_a_large_decoder_from_a_disk_says_what_it_needs(browser, exported, tmp_path):
    folder = tmp_path / "large"
    shutil.copytree(exported[0] / "plain", folder)
    (folder / "decoder.js").write_text("// not here\n")
    page = browser.new_page()
    page.goto((folder / "index.html").as_uri())
    page.wait_for_selector("#status.wrong", timeout=SECONDS)
    assert "python -m http.server" in page.inner_text("#status")
    page.close()


def test_a_click_on_a_picture_goes_to_its_latents_and_hovering_shows_it(visit, exported):
    page = visit(viewport={"width": 1280, "height": 1100})
    places = np.array(page.evaluate("plane.places.map(toPixels)")) / page.evaluate("plane.size")
    # One that stands alone, so that it is the nearest to its own place.
    distances = np.abs(places[:, None] - places).sum(-1) + 9 * np.eye(len(places))
    i = int(distances.min(axis=1).argmax())
    page.mouse.move(*corner(page, *places[i]))
    names, labels = page.evaluate("[known.class_names, [...points.labels]]")
    assert page.inner_text("#tip-words") == names[labels[i]]
    page.mouse.click(*corner(page, *places[i]))
    np.testing.assert_array_equal(latents(page), page.evaluate(f"[...points.means[{i}]]"))
    check_picture(page, exported[2]["plain"])
    assert names[labels[i]] in page.inner_text("#chosen-words")


def test_the_lasso_goes_to_the_mean_of_what_it_holds(visit):
    page = visit(viewport={"width": 1280, "height": 1100})
    places = np.array(page.evaluate("plane.places.map(toPixels)")) / page.evaluate("plane.size")
    page.click("#lasso")
    page.mouse.move(*corner(page, 0.02, 0.02))
    page.mouse.down()
    for point in ((0.5, 0.02), (0.5, 0.5), (0.5, 0.98), (0.02, 0.98)):
        page.mouse.move(*corner(page, *point))
    page.mouse.up()
    held = (places[:, 0] < 0.5) & (places > 0.02).all(axis=1) & (places < 0.98).all(axis=1)
    assert 0 < held.sum() < len(held)
    means = np.array(page.evaluate("points.means.map((z) => [...z])"))
    np.testing.assert_allclose(latents(page), means[held].mean(axis=0), atol=1e-5)
    assert f"Mean of {held.sum()} pictures" in page.inner_text("#status")


@pytest.mark.parametrize(("along", "path"), [("line", linear_path), ("arc", spherical_path)])
def test_the_way_from_a_to_b_is_the_library_s(visit, exported, along, path):
    page = visit()
    ends = np.array(page.evaluate("[[...points.means[0]], [...points.means[1]]]"))
    page.select_option("#along", along)
    for i, name in enumerate("ab"):
        page.evaluate(f"explorer.go(points.means[{i}])")
        page.click(f"#set-{name}")
    found = [page.evaluate(f"[...explorer.way({i} / 8)]") for i in range(9)]
    np.testing.assert_allclose(found, path(*ends, 9), atol=1e-5)
    page.locator("#strip button").nth(3).click()
    np.testing.assert_allclose(latents(page), path(*ends, 9)[3], atol=1e-5)
    check_picture(page, exported[2]["plain"])


def test_keys_and_sliders_move_too(visit, exported):
    page = visit()
    before = latents(page)
    page.focus("#over")
    steps = []
    for keys in ("ArrowRight", "Shift+ArrowRight", "ArrowLeft"):
        page.keyboard.press(keys)
        steps.append(np.linalg.norm(latents(page) - before))
    np.testing.assert_allclose(np.divide(steps, steps[0]), [1, 6, 5], rtol=1e-3)
    unit = page.evaluate("known.order[0]")
    before = latents(page)
    page.locator("#sliders input").first.fill("1.25")
    changed = np.flatnonzero(latents(page) != before)
    assert changed.tolist() == [unit]
    assert latents(page)[unit] == pytest.approx(1.25, abs=0.01)
    check_picture(page, exported[2]["plain"])


def test_thumbnails_and_labels_of_one_class_alone(visit, exported):
    page = visit(viewport={"width": 1280, "height": 1100})
    page.locator("#legend button").nth(1).click()
    labels = np.array(page.evaluate("[...points.labels]"))
    assert page.evaluate("shownPoints()") == np.flatnonzero(labels == 1).tolist()
    page.click("#mean")
    means = np.array(page.evaluate("points.means.map((z) => [...z])"))
    np.testing.assert_allclose(latents(page), means[labels == 1].mean(axis=0), atol=1e-5)
    sheet = page.evaluate("points.data")
    assert base64.b64decode(sheet.partition(",")[2]).startswith(b"\x89PNG")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_a_phone_and_keeps_nobody_out(visit, faults, width, scheme):
    """Nothing sticks out at the side; amid a walk, when all is shown, axe-core finds no fault."""
    size = {"width": width, "height": 844}
    page = visit("told", viewport=size, color_scheme=scheme, reduced_motion="reduce")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for button in ("#set-a", "#draw", "#set-b", "#nearest", "#lasso"):
        page.click(button)
    page.locator("#legend button").first.click()
    page.wait_for_selector("#strip button")
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert faults(page) == []


def decoded(page):
    """A digest of the pixels of the drawn samples and of the way, as they are shown."""
    pixels = page.evaluate("""() => [...document.querySelectorAll("#drawn canvas, #strip canvas")]
      .map((each) => [...each.getContext("2d").getImageData(0, 0, width, height).data])""")
    return hashlib.sha256(repr(pixels).encode()).hexdigest()


def choose_class(page, label):
    """By hand, and waits until all is drawn."""
    page.select_option("#class", str(label))
    page.evaluate("Promise.all([showWay(), showSamples()])")
    return decoded(page)


def test_a_picture_of_another_class_redraws_all_that_is_decoded_with_it(visit):
    """As a class chosen by hand does; what is drawn was of the class before."""
    page = visit("told")
    for name in "ab":
        page.click("#draw")
        page.click(f"#set-{name}")
    page.wait_for_selector("#strip button")
    by_hand = choose_class(page, 2)
    assert choose_class(page, 0) != by_hand
    page.evaluate("take([...points.labels].indexOf(2))")
    assert page.evaluate("state.label") == 2
    for _ in range(60):  # a slow machine takes its time
        settle(page)
        if decoded(page) == by_hand:
            break
    assert decoded(page) == by_hand


def test_a_class_of_which_no_picture_is_shown_is_said_to_be_so(visit):
    """A page shows some pictures, and of a small class that may be none."""
    page = visit()
    page.evaluate("""() => {
      points.labels.forEach((label, i) => { if (label === 1) points.labels[i] = 0; });
      state.shown.clear();
      state.shown.add(1);
    }""")
    before = latents(page)
    for act in (
        lambda: page.click("#mean"),
        lambda: page.click("#nearest"),
        lambda: page.locator("#over").press("Enter"),
    ):
        page.evaluate("say('')")
        act()
        settle(page)
        assert page.inner_text("#status") == "No picture is shown."
        np.testing.assert_array_equal(latents(page), before)
    assert page.wrong == []
