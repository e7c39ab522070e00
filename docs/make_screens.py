"""The pictures of report, app and latent explorer in the README, as a browser shows them.

    .venv-app/bin/python docs/make_screens.py runs/demo.html runs/demo-transfer runs/demo-vae

Needs `make test-app` (for Playwright and Gradio) and Chromium on the PATH. The runs are served as
`safelight serve` serves them; the classifier is asked about two solar cells of its test part (of
each class the one it is surest of), a drawing and a text file.
"""

import contextlib
import csv
import functools
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image, ImageDraw
from playwright.sync_api import Page, sync_playwright

from safelight import datasets

SCREENS = {"wide": (1280, 860, "light"), "phone": (390, 860, "dark")}
"""Width and height in pixels, and the colours that the reader prefers."""
GAP, COLOURS = 24, 256
PATIENCE = 300_000  # milliseconds: the first answer compiles
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
PICTURES = Path(__file__).parent / "pictures"


@contextlib.contextmanager
def serve(run: str) -> Iterator[str]:
    """The address at which a run is served."""
    call = [sys.executable, "-m", "safelight", "serve", run, "--port", "0", "--no-open"]
    server = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield next(
            found[0] for line in server.stdout if (found := re.search(r"http://[\d.:]+", line))
        )
    finally:
        server.terminate()
        server.wait()


def surest(run: Path) -> dict[str, str]:
    """Of each class the test picture that is answered right most surely."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == row["prediction"]]
    rows.sort(key=lambda row: float(row[f"p({row['label']})"]))
    return {row["label"]: row["file"] for row in rows}


def make_uploads(run: Path, folder: Path) -> list[Path]:
    """Two cells, a drawing and a text file."""
    cells = datasets.load("elpv")
    for file in surest(run).values():
        pixels = cells.read(cells.files.index(file))
        Image.fromarray(pixels).save(folder / f"{Path(file).stem}.png")
    drawing = Image.new("RGB", (300, 230), "#2a7d3c")
    ImageDraw.Draw(drawing).ellipse((85, 50, 215, 180), fill="#e63c2a")
    drawing.save(folder / "tomato.png")
    (folder / "notes.txt").write_text("no picture")
    return [*sorted(folder.glob("cell*")), folder / "tomato.png", folder / "notes.txt"]


def ask(run: Path, page: Page) -> None:
    """Drops the pictures on the app, and waits for the answers."""
    with tempfile.TemporaryDirectory() as folder:
        files = make_uploads(run, Path(folder))
        page.wait_for_selector(".sl-drop input[type=file]", state="attached")
        page.set_input_files(".sl-drop input[type=file]", [str(path) for path in files])
        seen = f"document.querySelectorAll('.sl-card').length >= {len(files)}"
        page.wait_for_function(seen)
    page.wait_for_timeout(1500)


def walk(page: Page) -> None:
    """Goes to a training picture once the decoder answers."""
    page.locator("body[data-ready]").wait_for()
    page.evaluate("explorer.go(explorer.points.means[5], {chosen: 5})")
    page.wait_for_timeout(1500)


def photograph(address: str, act: Callable[[Page], None], target: Path) -> None:
    """Both screens side by side, in one picture."""
    shots = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=FLAGS.split()
        )
        for width, height, colours in SCREENS.values():
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=colours
            )
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            act(page)
            shot = target.with_name(f".{target.stem}.{width}.png")
            page.screenshot(path=shot)
            shots.append(Image.open(shot).convert("RGB"))
            shot.unlink()
        browser.close()
    sheet = Image.new("RGB", (sum(s.width for s in shots) + GAP, shots[0].height), "#8b919b")
    sheet.paste(shots[0], (0, 0))
    sheet.paste(shots[1], (shots[0].width + GAP, 0))
    sheet.quantize(COLOURS).save(target, optimize=True)


def main() -> None:
    """Writes report.png, app.png and explorer.png in docs/pictures."""
    report, classifier, autoencoder = map(Path, sys.argv[1:])
    photograph(report.resolve().as_uri(), lambda page: None, PICTURES / "report.png")
    asking = functools.partial(ask, classifier)
    for run, act, name in ((classifier, asking, "app"), (autoencoder, walk, "explorer")):
        with serve(str(run)) as address:
            photograph(address, act, PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
