"""The page of a classifier, asked by programs: the interface that Gradio gives it."""

import itertools
import json
import threading
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safelight.app import page

pytestmark = pytest.mark.filterwarnings("ignore")  # those of libraries are theirs to mend
SECONDS = 300  # a busy machine takes its time


def post(address, body, kind):
    request = urllib.request.Request(address, body, {"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


def upload(server, path):
    """A file as a form, as browsers send it."""
    border = uuid.uuid4().hex
    head = f'--{border}\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n'
    body = head.encode() + b"\r\n" + path.read_bytes() + f"\r\n--{border}--\r\n".encode()
    kind = f"multipart/form-data; boundary={border}"
    return post(f"{server.address}/gradio_api/upload", body, kind)[0]


def ask(server, *paths):
    """What the page says of files, as a program asks for it."""
    files = [{"path": upload(server, path), "meta": {"_type": "gradio.FileData"}} for path in paths]
    call = f"{server.address}/gradio_api/call/predict"
    event = post(call, json.dumps({"data": [files]}).encode(), "application/json")["event_id"]
    with urllib.request.urlopen(f"{call}/{event}", timeout=SECONDS) as stream:
        lines = stream.read().decode().splitlines()
    assert "event: complete" in lines, lines
    return json.loads(lines[lines.index("event: complete") + 1].removeprefix("data: "))[0]


@pytest.fixture
def picture(paint, tmp_path):
    def save(name, red, **options):
        Image.fromarray(paint(red, **options)).save(tmp_path / name)
        return tmp_path / name

    return save


def test_programs_get_the_answers_and_bad_files_stop_nobody(served, picture, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("hello")
    found = ask(served, picture("a.png", 0.8), notes, picture("b.png", 0.1, green=1.0))
    first, second, third = found
    assert first["file"] == "a.png"
    assert list(first["probabilities"].values()) == pytest.approx([0.2, 0.8])
    assert first["prediction"] == list(first["probabilities"])[1]
    assert first["refused"] is False
    assert len(first["nearest"]) == 4
    assert (second["file"], second["error"][:13]) == ("notes.txt", "not a picture")
    assert (third["prediction"], third["refused"]) == (None, True)


def test_ten_clients_at_once_get_their_own_answers(served, picture):
    files = [picture(f"{number}.png", number / 10) for number in range(10)]
    start = threading.Barrier(10)

    def client(file):
        start.wait()
        return [ask(served, file)[0] for _ in range(2)]

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(client, files))
    for number, answers in enumerate(found):
        for answer in answers:
            assert answer["file"] == f"{number}.png"
            red = list(answer["probabilities"].values())[1]
            assert red == pytest.approx(round(255 * number / 10) / 255, abs=0.003)


def test_a_file_that_is_too_large_is_refused(served, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(bytes(page.MAX_FILE_SIZE + 1))
    with pytest.raises(urllib.error.HTTPError) as refused:
        upload(served, large)
    assert refused.value.code == 413


def ask_for(server, name):
    """What is said of a file that was named but not uploaded."""
    call = f"{server.address}/gradio_api/call/predict"
    files = [{"path": name, "meta": {"_type": "gradio.FileData"}}]
    event = post(call, json.dumps({"data": [files]}).encode(), "application/json")["event_id"]
    with urllib.request.urlopen(f"{call}/{event}", timeout=SECONDS) as stream:
        return stream.read().decode()


def test_no_file_of_the_machine_can_be_asked_for(served, tmp_path):
    secret = tmp_path / "secret.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(secret)
    for path in (secret, Path(__file__).resolve()):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{served.address}/gradio_api/file={path}", timeout=SECONDS)
        assert refused.value.code in (403, 404)
        said = ask_for(served, str(path))
        assert said.startswith("event: error"), said


def test_no_address_is_fetched_for_a_client(served, monkeypatch):
    from gradio import processing_utils

    asked = []

    async def fetch(address, **_):
        asked.append(address)
        raise ValueError("fetched")

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    assert ask_for(served, "https://pictures.example/a.png").startswith("event: error")
    assert asked == []


def test_an_uploaded_drawing_is_not_shown_as_a_page(served, tmp_path):
    """SVG may hold scripts: whoever opens the link gets a file to save."""
    drawing = tmp_path / "a.svg"
    drawing.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    assert "not a picture" in ask(served, drawing)[0]["error"]
    address = f"{served.address}/gradio_api/file={upload(served, drawing)}"
    with urllib.request.urlopen(address, timeout=SECONDS) as answer:
        assert answer.headers["content-disposition"].startswith("attachment")


def test_the_page_names_no_other_server_to_ask(served):
    with urllib.request.urlopen(served.address, timeout=SECONDS) as answer:
        html = answer.read().decode()
    loaded = [part.split(">")[0] for part in html.replace("<link", "<script").split("<script")[1:]]
    assert loaded
    assert [tag for tag in loaded if "//" in tag] == []
    assert '"analytics_enabled":false' in html.replace(" ", "")
    assert '"run_history":true' not in html.replace(" ", "")


def test_more_files_than_are_taken_are_said_so(stub, picture):
    """Without a server: the cards come one by one, then the sentence."""
    paths = [str(picture("a.png", 0.5))] * (page.MOST_FILES + 1)
    steps = list(page.stream_cards(stub, paths))
    assert len(steps) == 1 + page.MOST_FILES + 1
    assert all(new.startswith(old) for old, new in itertools.pairwise(steps))
    assert steps[-1].count("<article") == page.MOST_FILES
    assert f"only the first {page.MOST_FILES} were answered" in steps[-1]
    assert list(page.stream_cards(stub, None)) == [""]


def test_programs_get_an_answer_for_each_file_they_sent(stub, picture):
    paths = [str(picture(f"{number}.png", 0.5)) for number in range(page.MOST_FILES + 3)]
    found = page.list_answers(stub, paths)
    assert [each["file"] for each in found] == [f"{number}.png" for number in range(len(paths))]
    answered = ["error" not in each for each in found]
    assert answered == [True] * page.MOST_FILES + [False] * 3
    assert all(f"first {page.MOST_FILES} files" in each["error"] for each in found[-3:])
    assert page.list_answers(stub, None) == []


def test_what_gradio_keeps_of_visitors_does_not_grow_with_their_number(served):
    """Ten thousand requests took 100 MB before; benchmarks/app_soak.py sends them."""
    routes = served._server.config.app._app.routes
    (holder,) = (r.app.state_holder for r in routes if hasattr(r, "app") and r.path != "/static")
    for number in range(3 * page._MOST_SESSIONS):
        assert holder[f"visitor {number}"] is not None
    assert len(holder.session_data) <= page._MOST_SESSIONS + 1
