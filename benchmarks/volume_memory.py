"""Memory of prediction into a table and of extraction, from 1,000 to 100,000 pictures.

    python benchmarks/volume_memory.py [--most 100000]

Each in a process of its own, whose largest resident memory is what the operating system counted.
Pictures are small and the network is smaller: it is the number of pictures that is looked at. The
picture goes to docs/pictures/volume_memory.png.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import Any

from repeats import keep, parse_options, write_result
from transfer_cached_vs_end_to_end import HERE, ROOT
from volume.report import MEMORY_CLAIM, TITLES

CLAIM = MEMORY_CLAIM


def call_child(**call: Any) -> dict[str, Any]:
    """What a process of its own measures."""
    command = [sys.executable, str(HERE / "volume" / "child.py"), json.dumps(call)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def draw(peaks: dict[str, Any]) -> None:
    """The picture in docs/pictures."""
    from safelight import plots

    curves = {
        TITLES[what]: [(int(number), each["peak_mib"]) for number, each in of.items()]
        for what, of in peaks.items()
    }
    figure = plots.plot_curves(
        curves, xlabel="pictures", ylabel="largest resident memory, MiB", log="x"
    )
    axes = figure.axes[0]
    axes.set_ylim(0, 1.3 * max(y for rows in curves.values() for _, y in rows))
    plots.save_figure(figure, ROOT / "docs" / "pictures" / "volume_memory.png")


def run_all(options: Any) -> None:
    """Measure what is missing, write one result and draw the picture."""
    numbers = [number for number in (1000, 10_000, 100_000) if number <= options.most]
    peaks: dict[str, Any] = {what: {} for what in TITLES}
    for what, of in peaks.items():
        for number in numbers:
            call = functools.partial(
                call_child, what=what, num_images=number, work=str(options.work)
            )
            of[str(number)] = keep(options, f"{CLAIM}-{what}-{number}", call)
    write_result(options, CLAIM, {"peaks": peaks}, "32px")
    draw(peaks)


if __name__ == "__main__":
    run_all(parse_options(__doc__ or "", most=100_000))
