"""Runs notebooks from top to bottom and keeps what they show.

    python notebooks/tools/execute.py notebooks/01_transfer_learning.py

`NAME.py` is the source; `NAME.ipynb` beside it is made anew, whole or not at all. Nothing is kept
that changes from run to run without need: no time stamps, no random cell names, no notes of
TensorFlow's at its start.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from pathlib import Path

import jupytext
import nbclient
import nbformat
import numpy as np
from PIL import Image

_MAX_DIFFERENCE = 2.0  # of 255, root mean square


def read_source(source: Path) -> nbformat.NotebookNode:
    """The notebook of a py:percent file, without outputs, its cells named by their places."""
    notebook = jupytext.read(source)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for place, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{place:02d}", {}
    return notebook


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Runs all cells in a kernel of this Python; the first error ends it.

    Args:
        notebook: As from `read_source`; its outputs are filled in.
        folder: Where it runs.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    client = nbclient.NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    language = notebook.metadata["language_info"]
    client.execute()
    notebook.metadata["language_info"] = language  # the kernel adds its exact version
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_start_up_note(output)]
            for output in cell.outputs:
                _shrink(output)
    return notebook


def _shrink(output: nbformat.NotebookNode) -> None:
    """A picture in 256 colours, where that changes next to nothing: half the bytes."""
    content = output.get("data", {}).get("image/png")
    if content is None:
        return
    picture = Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
    reduced = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    difference = np.asarray(picture, float) - np.asarray(reduced.convert("RGB"), float)
    buffer = io.BytesIO()
    reduced.save(buffer, "PNG", optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    if np.sqrt((difference**2).mean()) < _MAX_DIFFERENCE and len(encoded) < len(content):
        output["data"]["image/png"] = encoded


def _is_start_up_note(output: nbformat.NotebookNode) -> bool:
    """TensorFlow tells at its start which instructions it uses; no setting keeps it quiet."""
    lines = output.get("text", "").splitlines()
    notes = ("WARNING: All log messages before absl", "I0000 ", "To enable the following instr")
    return output.get("name") == "stderr" and all(line.startswith(notes) for line in lines)


def main(sources: list[str]) -> None:
    """Executes each source and writes its `.ipynb`."""
    for source in map(Path, sources):
        notebook = execute(read_source(source), source.parent)
        partial = source.with_suffix(".ipynb.partial")
        nbformat.write(notebook, partial)
        os.replace(partial, source.with_suffix(".ipynb"))


if __name__ == "__main__":
    main(sys.argv[1:])
