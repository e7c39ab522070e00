"""Which backend Keras runs on where nobody said: the fastest of those that are installed.

Loads neither Keras nor a backend: whoever asks means to load one of them only.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
# Images a second on a processor beside TensorFlow's, benchmarks/README.md; the order is that of
# speed. PyTorch steps through small dense layers one by one, JAX has slow convolutions.
SPEEDS: Mapping[str, Mapping[str, float]] = {
    "dense": {"tensorflow": 1.0, "jax": 0.94, "torch": 0.41},
    "convolutions": {"tensorflow": 1.0, "torch": 0.74, "jax": 0.036},
}
_SLOW = 0.5  # of the speed of the fastest that is installed: from here on it is worth a sentence
# What JAX's parts for GPUs begin with, the devices that each drives (NVIDIA's, AMD's, and those of
# Linux inside Windows), and the variables that hide them.
_GPUS = {
    "xla_cuda": (("/dev/nvidiactl", "/dev/dxg"), ("CUDA_VISIBLE_DEVICES",)),
    "xla_rocm": (("/dev/kfd", "/dev/dxg"), ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")),
}


def kind_of_work(architecture: str) -> str:
    """The row of `SPEEDS` for an autoencoder's architecture."""
    return "dense" if architecture in ("dense", "residual") else "convolutions"


def choose_backend(
    work: str = "convolutions",
    *,
    training: bool = False,
    before: str | None = None,
    devices: int = 1,
) -> str | None:
    """Sets KERAS_BACKEND where it is not set and TensorFlow, Keras' own default, is not the best.

    Args:
        work: A row of `SPEEDS`.
        training: Whether a network is to be trained as a whole, which a GPU pays for. Then JAX is
            taken where it can use the GPU: measured, it is the fastest of the three there.
        before: Of an unfinished training that is to go on, the backend it was begun with.
        devices: Of several, JAX alone can make use.

    Returns:
        A sentence about the choice; `None` if nothing was chosen.
    """
    if os.environ.get("KERAS_BACKEND") or "keras" in sys.modules or _configured() != "tensorflow":
        return None
    installed = [name for name in SPEEDS[work] if _is_installed(name)]
    if before in installed:
        name, why = before, "it began this training"
    elif "jax" in installed and devices > 1:
        name, why = "jax", "it can share work among devices"
    elif "jax" in installed and training and _has_gpu():
        name, why = "jax", "it is installed for a GPU, and there is one"
    elif installed:
        missing = [NAMES[each] for each in NAMES if each not in installed]
        name, why = installed[0], _say_missing(missing)
    else:
        return None
    os.environ["KERAS_BACKEND"] = name
    if name == "tensorflow":
        return None
    another = "; KERAS_BACKEND chooses another" if len(installed) > 1 else ""
    return f"computing with {NAMES[name]}: {why}{another}"


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


def _say_missing(names: Sequence[str]) -> str:
    return f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'} not installed"


def _configured() -> str:
    """Of Keras' own file; Keras writes "tensorflow" there by itself, so that says nothing."""
    try:
        home = Path.home()
        base = home if os.access(home, os.W_OK) else Path("/tmp")  # as Keras does
        folder = Path(os.environ.get("KERAS_HOME") or base / ".keras").expanduser()
        content = json.loads((folder / "keras.json").read_text(encoding="utf-8"))
        return str(content.get("backend", "tensorflow"))
    except (OSError, RuntimeError, ValueError, AttributeError):
        return "tensorflow"


def _find(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # something of this name is loaded that has no spec
        return None


def _is_installed(name: str) -> bool:
    # A folder of this name, or what an uninstalled package left, has no file to begin with.
    spec = _find(name)
    return spec is not None and spec.origin is not None


def _has_gpu() -> bool:
    """Whether JAX has been installed with what drives a GPU, and there is one, not hidden."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms and not any(name in platforms for name in ("cuda", "rocm", "gpu")):
        return False
    plugins = _find("jax_plugins")
    places = (plugins.submodule_search_locations if plugins else None) or ()
    drivers = tuple(module.name for module in pkgutil.iter_modules(places))
    return any(
        any(name.startswith(driver) for name in drivers)
        and any(Path(device).exists() for device in found)
        and not any(os.environ.get(variable, "0") in ("", "-1") for variable in hiding)
        for driver, (found, hiding) in _GPUS.items()
    )
