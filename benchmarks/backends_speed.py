"""How fast each backend is for what, and whether a run answers alike on all of them.

    python benchmarks/backends_speed.py [--seconds 10] [--rounds 3] [--only extract,block5]
        [--run runs/demo-transfer]

Every measurement is a process of its own, backends taking turns over the rounds; the median counts.
Beside them plain PyTorch, in float32 and, where the processor multiplies bfloat16, in that too.
TensorFlow is that of this environment, the others are those of .venv-backends (`make test-backends`
makes it). With `--run` the run's classifier answers 100 pictures of ELPV on each backend. A
measurement that is done is kept in the working folder.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from measuring import machine
from repeats import keep, parse_options, write_result
from transfer_cached_vs_end_to_end import HERE, ROOT

CLAIM = "backends_speed"
WORK = ("extract", "block5", "explain", "dense_vae", "conv_vae", "likelihood")
IN_PLAIN = ("extract", "block5", "dense_vae")
IN_BFLOAT16 = ("extract", "block5")  # by ours too, where the processor multiplies it
BACKENDS = ("tensorflow", "jax", "torch")
NUM_PICTURES = 100
logger = logging.getLogger("benchmark")


def python_of(backend: str) -> str:
    """The interpreter that has this backend.

    Raises:
        SystemExit: It is not there.
    """
    if backend == "tensorflow":
        return sys.executable
    path = ROOT / ".venv-backends" / "bin" / "python"
    if not path.exists():
        raise SystemExit(f"{path} does not exist: `make test-backends` makes it.")
    return str(path)


def call(python: str, module: str, backend: str, arguments: dict[str, Any]) -> None:
    """Run a module of this folder in a process of its own."""
    words = [str(word) for key, value in arguments.items() for word in (f"--{key}", value)]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    subprocess.run([python, "-m", module, *words], check=True, cwd=HERE, env=environment)


def measure(options: Any, work: str, who: str) -> dict[str, Any]:
    """One rate: of ours on a backend such as `torch`, `torch-bfloat16`, or `plain-float32`."""
    output = (options.work / f"{CLAIM}.found.json").resolve()
    common = {"work": work, "seconds": options.seconds, "output": output}
    name, _, precision = who.partition("-")
    arguments = {**common, **({"precision": precision} if precision else {})}
    if name == "plain":
        call(python_of("torch"), "backends.plain", "torch", arguments)
    else:
        call(python_of(name), "backends.child", name, arguments)
    return json.loads(output.read_text(encoding="utf-8"))


def measure_rates(options: Any) -> dict[str, dict[str, Any]]:
    """For each kind of work and each that does it: the rates of all rounds, and their median."""
    fast = bool(machine()["bfloat16"])
    plain = ["plain-float32"] + ["plain-bfloat16"] * fast
    ours = ["tensorflow-bfloat16", "torch-bfloat16"] * fast
    rates: dict[str, dict[str, list[float]]] = {}
    for number in range(options.rounds):
        for work in options.only.split(","):
            also = [*(plain if work in IN_PLAIN else ()), *(ours if work in IN_BFLOAT16 else ())]
            for who in (*BACKENDS, *also):
                name = f"{CLAIM}-{work}-{who}-{options.seconds}-{number}"
                found = keep(options, name, functools.partial(measure, options, work, who))
                rates.setdefault(work, {}).setdefault(who, []).append(float(found["rate"]))
                logger.info("%s, %s: %.1f a second", work, who, found["rate"])
    return {
        work: {
            who: {"median": statistics.median(all_), "rates": all_} for who, all_ in some.items()
        }
        for work, some in rates.items()
    }


def compare_answers(options: Any) -> dict[str, Any] | None:
    """How far the same run's probabilities differ between backends."""
    if not options.run:
        return None
    from safelight import datasets

    cells = datasets.load("elpv")
    data = (options.work / f"{CLAIM}.pictures.npz").resolve()
    chosen = np.linspace(0, len(cells) - 1, NUM_PICTURES).astype(int)
    np.savez(data, images=np.stack([cells.read(int(i)) for i in chosen]))
    found = {}
    for backend in BACKENDS:
        output = (options.work / f"{CLAIM}.{backend}.npz").resolve()
        arguments = {"work": "answers", "run": Path(options.run).resolve(), "data": data}
        call(python_of(backend), "backends.child", backend, {**arguments, "output": output})
        with np.load(output) as arrays:
            found[backend] = arrays["probabilities"]
    first = found["tensorflow"]
    return {
        "num_pictures": NUM_PICTURES,
        "largest_difference": {
            backend: float(np.abs(found[backend] - first).max()) for backend in BACKENDS[1:]
        },
        "agreement": {
            backend: float((found[backend].argmax(1) == first.argmax(1)).mean())
            for backend in BACKENDS[1:]
        },
    }


def run_all(options: Any) -> None:
    """Measure what is missing and write one result."""
    answered = compare_answers(options)
    content = {
        "seconds": options.seconds,
        "rounds": options.rounds,
        "work": measure_rates(options),
        "answers": answered,
        "torch": _version("torch"),
        "jax": _version("jax"),
    }
    write_result(options, CLAIM, content, f"{options.rounds}rounds")


def _version(package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run(
        [python_of(package), "-c", code], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    run_all(
        parse_options(
            __doc__ or "",
            only=WORK,
            texts={"run": ""},
            seconds=10,
            rounds=3,
        )
    )
