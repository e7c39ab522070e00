"""What is on pictures? `python predict.py PICTURE...`, in the folder of an exported classifier.

Needs onnxruntime, NumPy and Pillow, nothing else. A line a picture: file, class, probability.
"""

import io
import json
import sys
from pathlib import Path

import onnxruntime

from safelight.images import ImageError, read_image


def spelt(text: object) -> str:
    """A text on one line, without what a terminal would obey: names may be of anybody's making."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def main(folder: Path, files: list[str]) -> int:
    """Answers pictures and returns the number of those that could not be read."""
    known = json.loads((folder / "safelight-model.json").read_text(encoding="utf-8"))
    model = onnxruntime.InferenceSession(str(folder / known["file"]))
    failed = 0
    for file in files:
        try:
            pixels = read_image(file)
        except ImageError as error:
            print(spelt(error), file=sys.stderr)
            failed += 1
            continue
        (probabilities,) = model.run(None, {known["input"]["name"]: pixels[None]})[0]
        best = int(probabilities.argmax())
        name = spelt(known["class_names"][best])
        print(f"{spelt(file)}  {name}  {probabilities[best]:.1%}")
    return failed


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):  # names may be in letters that a terminal lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if len(sys.argv) < 2:
        sys.exit("usage: python predict.py PICTURE...")
    sys.exit(min(main(Path(__file__).parent, sys.argv[1:]), 1))
