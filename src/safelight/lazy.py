"""Names of a package that are loaded when they are first used (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def on_demand(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package whose names live in its modules.

        __getattr__, __dir__ = on_demand(__name__, _HOMES)

    Args:
        package: Its full name.
        homes: Each public name, and the module of the package that has it, or the full name of
            one elsewhere.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name] if "." in homes[name] else f"{package}.{homes[name]}"
        return getattr(importlib.import_module(home), name)

    def list_names() -> list[str]:
        return sorted([*vars(sys.modules[package]), *homes])

    return find, list_names
