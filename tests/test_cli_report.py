"""`safelight report`: a page and a card from a run, and a sentence for every mistake."""

import functools
import subprocess
import sys

import pytest

from safelight.runs import Run


@pytest.fixture
def call(call):
    """Run the program inside this process; it loads no Keras."""
    return functools.partial(call, early=True)


@pytest.fixture
def run(tmp_path):
    """A small finished run."""
    run = Run.create(tmp_path / "mine")
    dataset = {"name": "pets", "class_names": ["cat", "dog"], "num_images": 4}
    run.write_config({"kind": "transfer", "dataset": dataset, "settings": {"seed": 3}})
    run.write_metrics({"accuracy": {"value": 0.75, "low": 0.5, "high": 0.9}, "num_test": 4})
    return run


def test_a_page_and_a_card_are_written_and_named(call, run):
    code, out, err = call("report", run.path)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split(maxsplit=2) == ["model", "card", str(run.path / "README.md")]
    assert out.splitlines()[1].startswith(f"report            {run.path / 'report.html'}  (0.0 MB)")
    assert "75.0" in (run.path / "report.html").read_text()


def test_a_card_of_ones_own_is_kept_and_said_to_be(call, run):
    card = run.path / "README.md"
    card.write_text("mine")
    assert "(kept: it was not written by this command" in call("report", run.path)[1]
    assert card.read_text() == "mine"


def test_no_card_writes_none(call, run, tmp_path):
    code, out, _ = call("report", run.path, "--no-card", "--output", tmp_path / "a.html")
    assert (code, out.count("\n")) == (0, 1)
    assert [path.name for path in run.path.glob("*.[mh]*")] == []
    assert (tmp_path / "a.html").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere: does not exist"),
        (["mine", "mine"], "2 runs: say where their page is to be, --output FILE.html"),
        (["mine", "--output", "."], ".: is a folder; pass the name of a file"),
        (["mine", "--output", "none/there.html"], "none/there.html: cannot be written"),
    ],
)
def test_mistakes_are_a_sentence(call, run, monkeypatch, arguments, sentence):
    monkeypatch.chdir(run.path.parent)
    code, out, err = call("report", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"safelight: {sentence}")
    assert err.count("\n") == 1


def test_a_page_is_made_without_keras_or_matplotlib(run):
    code = (
        "import sys; from safelight import report; report.write_report([sys.argv[1]]); "
        "report.write_model_card(sys.argv[1]); "
        "print({'keras', 'tensorflow', 'torch', 'jax', 'matplotlib', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_run_that_is_replaced_loses_its_page_and_card_and_keeps_other_files(call, run):
    call("report", run.path)
    (run.path / "notes.md").write_text("mine")
    Run.create(run.path, overwrite=True)
    assert not (run.path / "report.html").exists()
    assert not (run.path / "README.md").exists()
    assert (run.path / "notes.md").exists()
