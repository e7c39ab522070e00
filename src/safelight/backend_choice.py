"""Which backend Keras runs on where nobody said: the fastest of those that are installed.

Loads neither Keras nor a backend: whoever asks means to load one of them only.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path

NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
# Images a second on a processor beside TensorFlow's, benchmarks/README.md; the order is that of
# speed. PyTorch steps through small dense layers one by one, JAX has slow convolutions.
SPEEDS: Mapping[str, Mapping[str, float]] = {
    "dense": {"tensorflow": 1.0, "jax": 0.94, "torch": 0.41},
    "convolutions": {"tensorflow": 1.0, "torch": 0.74, "jax": 0.036},
}
_SLOW = 0.5  # of TensorFlow's speed: from here on it is worth a sentence
_GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, Windows' Linux


def choose_backend(work: str = "convolutions", *, training: bool = False) -> str | None:
    """Sets KERAS_BACKEND where it is not set and TensorFlow, Keras' own default, is not the best.

    Args:
        work: A row of `SPEEDS`.
        training: Whether a network is to be trained as a whole, which a GPU pays for. Then JAX is
            taken where it can use the GPU: measured, it is the fastest of the three there.

    Returns:
        A sentence about the choice; `None` if nothing was chosen.
    """
    if os.environ.get("KERAS_BACKEND") or "keras" in sys.modules or _configured() != "tensorflow":
        return None
    installed = [name for name in SPEEDS[work] if _is_installed(name)]
    if training and "jax" in installed and _has_gpu():
        name, why = "jax", "it has a GPU here"
    elif installed and installed[0] != "tensorflow":
        others = " and ".join(NAMES[each] for each in NAMES if each not in installed)
        name, why = installed[0], f"{others} {'are' if ' and ' in others else 'is'} not installed"
    else:
        return None
    os.environ["KERAS_BACKEND"] = name
    return f"computing with {NAMES[name]}: {why}; KERAS_BACKEND chooses another"


def name_faster(backend: str, work: str, *, accelerator: str | None) -> str | None:
    """A sentence where another backend that is installed is more than twice as fast.

    Args:
        backend: That Keras runs on.
        work: A row of `SPEEDS`.
        accelerator: The GPU or the like that it computes on: what is known holds for none.
    """
    mine = SPEEDS[work].get(backend, 1.0)
    best = next((name for name in SPEEDS[work] if _is_installed(name)), backend)
    ratio = SPEEDS[work].get(best, 1.0) / mine
    if accelerator or ratio * _SLOW <= 1:
        return None
    kind = "dense layers" if work == "dense" else work
    return (
        f"{NAMES[best]} is installed and, on a processor, about {ratio:.2g} times as fast as "
        f"{NAMES[backend]} at {kind} (docs/backends.md): KERAS_BACKEND={best} takes it"
    )


def _configured() -> str:
    """Of Keras' own file; Keras writes "tensorflow" there by itself, so that says nothing."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    try:
        content = json.loads((Path(home) / "keras.json").read_text(encoding="utf-8"))
        return str(content.get("backend", "tensorflow"))
    except (OSError, ValueError, AttributeError):
        return "tensorflow"


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # something of this name is loaded that has no spec
        return False


def _has_gpu() -> bool:
    """Whether JAX has been installed with what drives a GPU, and there is one."""
    try:
        plugins = importlib.util.find_spec("jax_plugins")
    except ValueError:
        return False
    places = (plugins.submodule_search_locations if plugins else None) or ()
    drivers = [module.name for module in pkgutil.iter_modules(places)]
    driven = any(name.startswith(("xla_cuda", "xla_rocm")) for name in drivers)
    return driven and any(Path(device).exists() for device in _GPUS)
