"""`safelight serve` as a user starts it, in a process of its own."""

import json
import os
import select
import signal
import subprocess
import sys
import urllib.request

import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SECONDS = 300  # loading Keras on a busy machine


@pytest.fixture
def start(serving, tmp_path):
    """Starts the program; gives the process and the page's address."""
    pytest.importorskip("gradio")
    started = []

    def start(*arguments):
        settings = {**os.environ, "TMPDIR": str(tmp_path), "SAFELIGHT_OFFLINE": "1"}
        # Who runs the tests in the background may have Ctrl-C ignored, and that is inherited.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            [sys.executable, "-m", "safelight", "serve", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings,
        )  # fmt: skip
        signal.signal(signal.SIGINT, before)
        started.append(process)
        assert select.select([process.stdout], [], [], SECONDS)[0], "says nothing"
        line = process.stdout.readline()
        assert line.startswith("page "), process.stderr.read()
        return process, line.split()[1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ask(address, path):
    """What the page says of a file, by the requests that README shows."""
    border = "border"
    head = f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n'
    body = head.encode() + b"\r\n" + path.read_bytes() + f"\r\n--{border}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={border}"}
    uploaded = urllib.request.Request(f"{address}/gradio_api/upload", body, kind)
    with urllib.request.urlopen(uploaded, timeout=SECONDS) as found:
        name = json.load(found)[0]
    files = [{"path": name, "meta": {"_type": "gradio.FileData"}}]
    call, kind = f"{address}/gradio_api/call/predict", {"Content-Type": "application/json"}
    asked = urllib.request.Request(call, json.dumps({"data": [files]}).encode(), kind)
    with urllib.request.urlopen(asked, timeout=SECONDS) as found:
        event = json.load(found)["event_id"]
    with urllib.request.urlopen(f"{call}/{event}", timeout=SECONDS) as stream:
        lines = stream.read().decode().splitlines()
    return json.loads(lines[lines.index("event: complete") + 1].removeprefix("data: "))[0]


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_is_served_until_it_is_told_to_end(start, run, dataset, tmp_path, sign, code):
    """Answers are the library's own, and the end leaves nothing behind."""
    from safelight.app.answering import Answerer

    process, address = start(run.path, "--port", "0")
    Image.fromarray(dataset.read(3)).save(tmp_path / "a.png")
    (said,) = ask(address, tmp_path / "a.png")
    expected = Answerer(run).answer(tmp_path / "a.png")
    assert list(said["probabilities"].values()) == pytest.approx(
        expected.probabilities.tolist(), abs=1e-5
    )
    assert list(tmp_path.glob("safelight-app-*/*"))
    process.send_signal(sign)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert ("stopped: the page is closed" in err) == (sign == signal.SIGINT)
    assert list(tmp_path.glob("safelight-app-*")) == []


def test_a_port_that_is_in_use_is_one_sentence(serving, run, tmp_path):
    pytest.importorskip("gradio")
    with serving(tmp_path) as other:
        port = other.address.rpartition(":")[2]
        found = subprocess.run(
            [sys.executable, "-m", "safelight", "serve", run.path, "--port", port],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.strip().splitlines()[-1].startswith(f"safelight: port {port} of 127.0.0.1")
