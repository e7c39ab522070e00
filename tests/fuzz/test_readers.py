"""Files changed at random, the same ones each time: read, or refused in a sentence, and no more.

`benchmarks/security_fuzz.py` does the same for minutes and counts.
"""

import importlib

import numpy as np
import pytest

NUM_CASES = 40
readers = importlib.import_module("security.readers")
verdicts = importlib.import_module("security.verdicts")
mutations = importlib.import_module("security.mutations")
# Other tests run beside these, so none is taken for slow.
GOOD = (verdicts.READ, verdicts.REFUSED, "slow")
# Keras takes half a second a case, so it sees those that our own look lets pass.
SLOW = ("model.keras (Keras)",)
QUICK = [reader for reader in readers.READERS if reader.name not in SLOW]


def judge(reader, folder, rng):
    folder.mkdir()
    name = reader.write_case(folder, rng)
    return name, verdicts.judge(
        reader.read, folder, errors=reader.errors(), max_megabytes=reader.max_megabytes
    )


@pytest.mark.parametrize("reader", readers.READERS, ids=lambda reader: reader.name)
def test_what_is_sound_is_read(reader, tmp_path):
    for name, content in reader.files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    reader.read(tmp_path)  # loads libraries
    found = verdicts.judge(reader.read, tmp_path, errors=reader.errors())
    assert found.kind in GOOD, found


@pytest.mark.parametrize("reader", QUICK, ids=lambda reader: reader.name)
def test_what_is_changed_is_read_or_refused_in_a_sentence(reader, tmp_path):
    wrong = {}
    for number in range(NUM_CASES):
        rng = np.random.default_rng([number, len(reader.name)])
        name, found = judge(reader, tmp_path / str(number), rng)
        if found.kind not in GOOD:
            wrong[number] = (name, found)
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "reader", [each for each in readers.READERS if each.name in SLOW], ids=lambda each: each.name
)
def test_a_changed_model_is_loaded_or_refused_in_a_sentence(reader, tmp_path):
    for number in range(NUM_CASES):
        name, found = judge(reader, tmp_path / str(number), np.random.default_rng(number))
        assert found.kind in GOOD, (number, name, found)


# --- the judge itself


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (lambda folder: None, "read"),
        (lambda folder: (folder / "a.txt").write_text("mine"), "read"),
        (lambda folder: _raise(ValueError("a.txt is damaged")), "refused"),
        (lambda folder: _raise(ValueError("damaged")), "unclear"),
        (lambda folder: _raise(ValueError("a.txt\nis damaged")), "unclear"),
        (lambda folder: _raise(ValueError("a.txt \x1b[2J")), "unclear"),
        (lambda folder: _raise(KeyError("a.txt")), "traceback"),
        (lambda folder: importlib.import_module("warnings").warn("x", stacklevel=1), "warning"),
        (lambda folder: (folder.parent / "b.txt").write_text("theirs"), "escape"),
        (lambda folder: (folder.parent / "theirs.txt").read_text(), "escape"),
        (lambda folder: importlib.import_module("os").system("true"), "escape"),
        (lambda folder: importlib.import_module("pickle").loads(b"cos\nsystem\n."), "escape"),
    ],
)
def test_the_judge_sees_what_must_not_be(tmp_path, read, kind):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    (tmp_path / "theirs.txt").write_text("theirs")
    assert verdicts.judge(read, folder).kind == kind


def _raise(error):
    raise error


def test_memory_is_counted(tmp_path):
    def take(folder):
        # More than this process ever had: below that nothing would be seen.
        had = max(0, verdicts._highest() - verdicts._resident())
        np.ones(20_000_000 + had // 8)

    assert verdicts.judge(take, tmp_path, max_megabytes=100).kind == "memory"


def test_a_number_names_a_case_for_ever():
    content = bytes(range(256)) * 4
    first, again, other = (
        mutations.change_bytes(np.random.default_rng(seed), content) for seed in (1, 1, 2)
    )
    assert first == again != other
