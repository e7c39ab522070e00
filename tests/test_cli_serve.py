"""`safelight serve`: every mistake is one sentence, and shows before Keras is loaded."""

import importlib.util

import pytest

from safelight.cli import serve
from safelight.runs import Run


@pytest.fixture
def installed(monkeypatch):
    """As if the extra were there, or not."""

    def pretend(*, missing=()):
        known = importlib.util.find_spec
        monkeypatch.setattr(
            serve.importlib.util,
            "find_spec",
            lambda name: None if name in missing else known("json" if name == "gradio" else name),
        )

    monkeypatch.setattr(serve, "_NEEDED", ("gradio",))
    pretend()
    return pretend


@pytest.fixture
def make_run(tmp_path):
    def make(kind, *, model=True):
        run = Run.create(tmp_path / kind)
        dataset = {"name": "pets", "class_names": ["cat", "dog"], "fingerprint": "0"}
        run.write_config({"kind": kind, "dataset": dataset, "settings": {}})
        if model:
            run.model_path.write_bytes(b"")
        return run.path

    return make


def test_the_extra_that_is_missing_is_named_with_the_command(call, installed, make_run):
    installed(missing=("gradio",))
    code, out, err = call("serve", make_run("transfer"), early=True)
    assert (code, out) == (2, "")
    assert err == (
        "safelight: serve needs gradio, which is not installed: `pip install 'safelight[app]'`.\n"
    )


@pytest.mark.parametrize(
    ("kind", "flags", "message"),
    [
        ("sweep", (), "a run of kind 'sweep' has no page"),
        ("vae", ("--refuse", "0.05"), "is no classifier"),
        ("transfer", ("--data", "no-such-folder"), "no-such-folder"),
        ("transfer", ("--port", "70000"), "port 70000: expected one from 0 to 65535"),
    ],
)
def test_a_mistake_is_one_sentence(call, installed, make_run, kind, flags, message):
    code, out, err = call("serve", make_run(kind), *flags, early=True)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_run_without_a_model_is_said_so(call, installed, make_run, tmp_path):
    code, _, err = call("serve", make_run("transfer", model=False), early=True)
    assert (code, err.count("\n")) == (2, 1)
    assert "there is no model" in err
    code, _, err = call("serve", tmp_path / "nothing", early=True)
    assert (code, err.count("\n")) == (2, 1)


def test_the_end_of_a_server_is_said_and_is_130(capsys, monkeypatch):
    """As every command that Ctrl-C ends; before it, the address is printed."""

    class Pretended:
        address, open_to_others = "http://127.0.0.1:1", True

        def serve(self, page, *, ready):
            ready()
            raise KeyboardInterrupt

    opened = []
    monkeypatch.setattr(serve.webbrowser, "open", opened.append)
    with pytest.raises(SystemExit) as left:
        serve._serve(Pretended(), page=None, open_browser=True)
    text = capsys.readouterr()
    assert left.value.code == 130
    assert text.out.split(maxsplit=2)[:2] == ["page", "http://127.0.0.1:1"]
    assert "it has no password" in text.err
    assert "safelight: stopped" in text.err
    assert opened == ["http://127.0.0.1:1"]
