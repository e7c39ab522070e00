"""The picture of a report in the README: a wide screen by day, a phone by night.

python docs/make_report_picture.py runs/demo-transfer/report.html

Needs Chromium (or Chrome) on the PATH; nothing else of the project does.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

SCREENS = {"wide": (1280, 760, "light"), "phone": (500, 760, "dark")}
"""Width and height in pixels, and the colours that the reader prefers."""
GAP = 24
COLOURS = 256
_SCHEMES = {"dark": 0, "light": 1}  # blink's own numbers


def photograph(page: Path, width: int, height: int, colours: str) -> Image.Image:
    """What a browser window of that size shows first."""
    browser = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    )
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "screen.png"
        command = [
            browser, "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu",
            f"--blink-settings=preferredColorScheme={_SCHEMES[colours]}",
            f"--window-size={width},{height}", f"--screenshot={target}", page.resolve().as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        return Image.open(target).convert("RGB")


def main() -> None:
    """Writes docs/pictures/report.png."""
    page = Path(sys.argv[1])
    screens = [photograph(page, *screen) for screen in SCREENS.values()]
    width = sum(screen.width for screen in screens) + GAP * (len(screens) - 1)
    sheet = Image.new("RGB", (width, max(screen.height for screen in screens)), "#8b919b")
    left = 0
    for screen in screens:
        sheet.paste(screen, (left, 0))
        left += screen.width + GAP
    target = Path(__file__).parent / "pictures" / "report.png"
    sheet.quantize(COLOURS).save(target, optimize=True)


if __name__ == "__main__":
    main()
