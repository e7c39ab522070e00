"""On what a number was measured: versions and machine, without saying whose machine it is."""

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from safelight import __version__

_PACKAGES = (
    "keras", "tensorflow", "tensorflow-cpu", "torch", "jax", "numpy", "scipy", "scikit-learn",
    "pillow", "ncnn", "openvino",
)  # fmt: skip


def describe_environment() -> dict[str, Any]:
    """Say on what a number was measured, without saying whose machine it is.

    Returns:
        Versions (None where not installed), backend, operating system, processor, its bfloat16
        instructions (None where unknown), cores that this process may use, the GPU or the like that
        the backend computes on (None for none), and the commit if Safelight runs from a checkout.
    """
    processor, flags = _processor()
    return {
        "safelight": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "backend": _backend(),
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": processor,
        "bfloat16": {
            name: (name in flags if flags else None) for name in ("amx_bf16", "avx512_bf16")
        },
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "accelerator": find_accelerator(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _backend() -> str | None:
    # Importing Keras only to ask would cost seconds and could fail; who has it loaded can say.
    keras = sys.modules.get("keras")
    return str(keras.config.backend()) if keras else os.environ.get("KERAS_BACKEND")


def describe_keras() -> str:
    """Keras' version, its backend, and what that computes on unless it is the processor.

    All that its random numbers depend on, and the last digits of what it computes.
    """
    import keras

    device = find_accelerator()
    on = f" on {device}" if device else ""
    return f"keras {keras.__version__} {keras.backend.backend()}{on}"


def find_accelerator() -> str | None:
    """Name of the first GPU, or the like, of a backend that is loaded already; `None` for none."""
    backend = _backend()
    library = sys.modules.get(backend or "")
    if library is None or "keras" not in sys.modules:
        return None
    match backend:
        case "jax":
            device = library.devices()[0]
            return None if device.platform == "cpu" else str(device.device_kind)
        case "tensorflow":
            devices = library.config.list_physical_devices("GPU")
            if not devices:
                return None
            details = library.config.experimental.get_device_details(devices[0])
            return str(details.get("device_name", "GPU"))
        case "torch":
            apple = "Apple GPU" if library.backends.mps.is_available() else None
            return library.cuda.get_device_name(0) if library.cuda.is_available() else apple
    return None


def _processor() -> tuple[str, frozenset[str]]:
    """Name of the processor and its instruction sets (empty where the system does not say)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _ask(
            ["sysctl", "-n", "machdep.cpu.brand_string"]
        ) or platform.processor(), frozenset()
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    return (
        name[1].strip() if name else platform.processor(),
        frozenset(flags[1].split()) if flags else frozenset(),
    )


def _commit() -> str | None:
    # Two levels up is the checkout; from site-packages it is not, so no other project is read.
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return _ask(["git", "-C", str(root), *describe])


def _ask(command: list[str]) -> str | None:
    """First line that a program answers, or None if it is absent, slow or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
