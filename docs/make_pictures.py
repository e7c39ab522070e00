"""The picture in the README, from the run that `make demo` leaves.

python docs/make_pictures.py [runs/demo-transfer]
"""

import sys
from pathlib import Path

from PIL import Image

WIDTH, GAP = 1600, 24


def beside(left: list[Image.Image], right: Image.Image) -> Image.Image:
    """Some pictures in a column, one to the right of them, on white."""
    column = (WIDTH - 3 * GAP) // 2
    scaled = [p.resize((column, round(p.height * column / p.width))) for p in [*left, right]]
    height = max(sum(p.height + GAP for p in scaled[:-1]), scaled[-1].height + GAP) + GAP
    sheet = Image.new("RGB", (WIDTH, height), "white")
    top = GAP
    for picture in scaled[:-1]:
        sheet.paste(picture, (GAP, top))
        top += picture.height + GAP
    sheet.paste(scaled[-1], (2 * GAP + column, GAP))
    return sheet


def main() -> None:
    """Reads the run's pictures and writes docs/pictures/demo.png."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo-transfer")
    names = ("metrics", "history", "reliability", "mistakes")
    pictures = [Image.open(run / "pictures" / f"{name}.png").convert("RGB") for name in names]
    target = Path(__file__).parent / "pictures" / "demo.png"
    target.parent.mkdir(exist_ok=True)
    beside(pictures[:2], pictures[3]).save(target, optimize=True)


if __name__ == "__main__":
    main()
