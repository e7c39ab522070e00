"""What importing costs: the doors of the house are light."""

import importlib.metadata
import json
import subprocess
import sys

import pytest

import safelight

HEAVY = {"keras", "tensorflow", "torch", "jax", "matplotlib", "sklearn"}
LIGHT = ["assets", "cli", "datasets", "folds", "images", "metrics", "report", "runs"]


def modules_loaded_by(code: str) -> set[str]:
    """Run code in an interpreter of its own and list all that it has imported when it ends."""
    tell = "import atexit, json, sys; atexit.register(lambda: print(json.dumps(list(sys.modules))))"
    result = subprocess.run(
        [sys.executable, "-c", f"{tell}\n{code}"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_importing_the_package_loads_no_third_party_module():
    bare = modules_loaded_by("import typing, importlib")
    third_party = {
        name.partition(".")[0] for name in modules_loaded_by("import safelight") - bare
    } - sys.stdlib_module_names
    assert third_party == {"safelight"}


@pytest.mark.parametrize("name", LIGHT)
def test_importing_a_light_module_loads_nothing_heavy(name):
    assert modules_loaded_by(f"import safelight.{name}") & HEAVY == set()


@pytest.mark.parametrize("arguments", [["--help"], ["transfer", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    code = f"import sys; sys.argv = ['safelight', *{arguments!r}]"
    code += "\nfrom safelight.cli import main; main()"
    assert modules_loaded_by(code) & HEAVY == set()


def test_python_dash_m_is_the_same_program():
    result = subprocess.run(
        [sys.executable, "-m", "safelight", "--help"], capture_output=True, text=True, check=True
    )
    assert "transfer" in result.stdout


@pytest.mark.parametrize("name", safelight.__all__)
def test_submodules_load_when_named(name):
    assert getattr(safelight, name) is importlib.import_module(f"safelight.{name}")
    assert name in dir(safelight)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'utils'"):
        safelight.utils  # noqa: B018


def test_the_version_is_the_installed_one():
    assert safelight.__version__ == importlib.metadata.version("safelight")
