"""The rules of ARCHITECTURE.md that a machine can hold."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "safelight"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAX_LINES = 500
MAX_BODY_LINES = 50
MAX_ARGUMENTS = 7

# Methods that Keras calls: what they do is said once, in Keras' own documentation.
KERAS_HOOKS = re.compile(
    r"build|call|compute_output_(shape|spec)|get_config|on_(train|epoch|\w+_batch)_\w+"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_id(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def functions(path: Path) -> Iterator[tuple[str, Function]]:
    """Yield every function and method of a module, however deeply nested, with its name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node.name, node


def public_definitions(path: Path) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Yield the functions, classes and methods whose names have no leading underscore."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        yield node.name, node
        for method in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(method, Function) and not method.name.startswith("_"):
                yield f"{node.name}.{method.name}", method


def body_lines(function: Function) -> int:
    first = function.body[1:2] if ast.get_docstring(function) else function.body[:1]
    return function.body[-1].end_lineno - first[0].lineno + 1 if first else 0


def num_arguments(function: Function) -> int:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return len([argument for argument in named if argument.arg not in {"self", "cls"}])


def test_import_contracts_hold():
    lint = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    result = subprocess.run(
        [*lint, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_modules_are_short(path):
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_LINES


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_functions_are_short(path):
    long = {name: body_lines(node) for name, node in functions(path)}
    assert {name: lines for name, lines in long.items() if lines > MAX_BODY_LINES} == {}


# An option of a command is an argument of its function, so the command line is let off.
@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent.name != "cli"], ids=module_id
)
def test_functions_take_few_arguments(path):
    many = {name: num_arguments(node) for name, node in functions(path)}
    assert {name: number for name, number in many.items() if number > MAX_ARGUMENTS} == {}


@pytest.mark.parametrize("path", MODULES, ids=module_id)
def test_what_is_public_is_documented(path):
    undocumented = [
        name
        for name, node in public_definitions(path)
        if not ast.get_docstring(node) and not KERAS_HOOKS.fullmatch(node.name)
    ]
    assert undocumented == []


def test_no_module_is_named_after_nothing():
    nothings = {"util", "utils", "common", "helper", "helpers", "misc"}
    assert [module_id(path) for path in MODULES if path.stem.strip("_") in nothings] == []


def modules_in_the_tree(text: str) -> set[str]:
    """Read the names of modules off the tree under the line `src/safelight/`."""
    tree = text.split("src/safelight/\n", 1)[1].split("```", 1)[0]
    found, folder = set(), ""
    for line in tree.splitlines():
        indent, name = re.match(r"( *)(\S*)", line).groups()
        if name.endswith("/") and len(indent) == 2:
            folder = name
        elif name.endswith(".py"):
            found.add((folder if len(indent) > 2 else "") + name)
    return found


def test_the_architecture_names_every_module_and_no_other():
    named = modules_in_the_tree((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    there = {module_id(path) for path in MODULES if path.parent == PACKAGE}
    there |= {module_id(path) for path in MODULES if path.name != "__init__.py"}
    assert named == there


def test_the_architecture_tells_the_layers_as_they_are_held():
    wanted = []
    for contract in PROJECT["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers":
            (container,) = contract["containers"]
            name = f"{container.removeprefix('safelight.')}:"
            for layer in contract["layers"]:  # optional ones stand in brackets there
                wanted.append(f"    {name:13}{re.sub('[()]', '', layer)}")
                name = ""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    told = text.split("## Who may import whom")[1].split("##")[0]
    assert [line for line in told.splitlines() if line.startswith("    ")] == wanted


def test_the_tests_that_the_architecture_names_exist():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert named
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).exists() or f"def {test}" not in (ROOT / file).read_text("utf-8")
    ]
    assert missing == []


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_tracked_file_names_a_registry_host_or_somebodys_folder():
    # In two pieces each, so that this file is not its own first finding.
    hosts = [
        ("py", r"pi\.org"),
        ("python", r"hosted\.org"),
        ("npm", r"js\.org"),
        ("deb", r"ian\.org"),
    ]
    folders = [
        ("/wo", "rk/"),
        ("/fa", "rm/"),
        ("/ro", "ot/"),
        ("/ho", r"me/\w+/"),
        ("/Us", r"ers/\w+/"),
    ]
    machine = [("/o", "pt/wheels"), ("/o", "pt/py"), ("/tm", "p/bash_")]
    forbidden = re.compile("|".join(map("".join, [*hosts, *folders, *machine])).encode())
    found = [
        f"{path.relative_to(ROOT)}: {match.group().decode()}"
        for path in tracked_files()
        for match in forbidden.finditer(path.read_bytes())
    ]
    assert found == []


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
USED = [
    *PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["tensorflow"],
]
WITH_TOOLS = [*USED, *PROJECT["dependency-groups"]["build"], *PROJECT["dependency-groups"]["dev"]]
WITH_SCALE = [*WITH_TOOLS, *PROJECT["project"]["optional-dependencies"]["scale"]]
WITH_PAGES = [
    *WITH_TOOLS,
    *PROJECT["project"]["optional-dependencies"]["app"],
    *PROJECT["dependency-groups"]["browser"],
]


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([\w.!+]+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("file", "declared"),
    [
        ("demo.txt", USED),
        ("dev.txt", WITH_TOOLS),
        ("app.txt", WITH_PAGES),
        ("scale.txt", WITH_SCALE),
    ],
    ids=["demo", "dev", "app", "scale"],
)
def test_every_declared_dependency_is_locked_within_its_range(file, declared):
    locked = pins(file)
    wrong = []
    for requirement in map(Requirement, declared):
        version = locked.get(canonicalize_name(requirement.name))
        if version is None or version not in requirement.specifier:
            wrong.append(f"{requirement} is locked at {version}")
    assert wrong == [], "run `make lock`"


@pytest.mark.parametrize("file", ["demo.txt", "dev.txt", "app.txt", "scale.txt"])
def test_every_locked_version_has_hashes_and_names_no_place(file):
    text = (ROOT / "requirements" / file).read_text(encoding="utf-8")
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert not re.search(r"://|^-", text, flags=re.MULTILINE)


def test_the_demo_installs_what_the_tests_ran_with():
    assert pins("demo.txt").items() <= pins("dev.txt").items()


def test_pages_are_tested_with_the_same_versions_but_for_what_gradio_wants_older():
    known, paged = pins("dev.txt"), pins("app.txt")
    assert known.keys() <= paged.keys()
    assert {name for name in known if known[name] != paged[name]} <= {"pillow", "tomlkit"}


def test_clusters_are_tested_with_the_same_versions():
    assert pins("dev.txt").items() <= pins("scale.txt").items()


def test_nothing_locked_brings_a_second_backend():
    for name in ("app.txt", "scale.txt"):
        assert pins(name).keys().isdisjoint({"torch", "jax", "jaxlib"})
