"""The pictures in the README, from the runs that `make demo` leaves.

python docs/make_pictures.py [runs]
"""

import sys
from pathlib import Path

from PIL import Image, ImageSequence

WIDTH, GAP, COLOURS = 1600, 24, 256
SHEETS = {
    "demo": ("demo-transfer", ("metrics", "reliability"), "mistakes"),
    "digits": ("demo-vae", ("reconstructions", "interpolation"), "traversals"),
}
"""A sheet's run, the pictures in its left column, and the one to the right of them."""
WHOLE = {"explanations": ("demo-transfer", "reasons")}
"""Pictures that are shown as they are: their run, and their name in it."""
FILM = "film"
"""A run of `vae train mnist --latent-dim 2 --minutes 1 --film`."""


def beside(left: list[Image.Image], right: Image.Image) -> Image.Image:
    """Some pictures in a column, one to the right of them, on white."""
    column = (WIDTH - 3 * GAP) // 2
    # A picture about as high as wide would fill the sheet.
    widths = [column if p.width > 1.5 * p.height else round(0.6 * column) for p in left] + [column]
    scaled = [
        p.resize((width, round(p.height * width / p.width)))
        for p, width in zip([*left, right], widths, strict=True)
    ]
    height = max(sum(p.height + GAP for p in scaled[:-1]), scaled[-1].height + GAP) + GAP
    sheet = Image.new("RGB", (WIDTH, height), "white")
    top = GAP
    for picture in scaled[:-1]:
        sheet.paste(picture, (GAP, top))
        top += picture.height + GAP
    sheet.paste(scaled[-1], (2 * GAP + column, GAP))
    return sheet


def main() -> None:
    """Reads the runs' pictures and writes docs/pictures/NAME.png, for those runs that are there."""
    runs = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")
    target = Path(__file__).parent / "pictures"
    target.mkdir(exist_ok=True)
    for name, (run, left, right) in SHEETS.items():
        folder = runs / run / "pictures"
        if not folder.is_dir():
            continue
        pictures = [Image.open(folder / f"{each}.png").convert("RGB") for each in (*left, right)]
        beside(pictures[:-1], pictures[-1]).save(target / f"{name}.png", optimize=True)
    for name, (run, picture) in WHOLE.items():
        source = runs / run / "pictures" / f"{picture}.png"
        if source.is_file():
            reduced = Image.open(source).convert("RGB")
            # The few bright colours count as much as the many greys.
            reduced = reduced.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE)
            reduced.save(target / f"{name}.png", optimize=True)
    film = runs / FILM / "pictures" / "film.gif"
    if film.is_file():
        shrink_film(film, target / "film.webp")


def shrink_film(source: Path, target: Path) -> None:
    """A film at two thirds of its size, as WebP."""
    with Image.open(source) as film:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
        film.seek(0)
        duration = film.info["duration"]
    width, height = frames[0].size
    frames = [
        frame.resize((width * 2 // 3, height * 2 // 3), Image.Resampling.LANCZOS)
        for frame in frames
    ]
    durations = [duration] * (len(frames) - 1) + [2000]
    rest = {"save_all": True, "append_images": frames[1:], "loop": 0, "method": 6, "quality": 70}
    frames[0].save(target, "WEBP", duration=durations, **rest)


if __name__ == "__main__":
    main()
