"""The server: to this machine alone, and every mistake one sentence."""

import errno
import socket
import urllib.error
import urllib.request

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # those of libraries are theirs to mend
SECONDS = 300  # a busy machine takes its time


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("static")
    (made / "index.html").write_text("<title>latent</title>")
    (made / "run.wasm").write_bytes(b"\0asm")
    return made


@pytest.fixture(scope="module")
def served(serving, folder):
    with serving(folder) as server:
        yield server


def get(address, **headers):
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_a_folder_is_served_as_it_is(served, folder):
    status, headers, body = get(served.address)
    assert (status, body) == (200, (folder / "index.html").read_bytes())
    assert headers["content-type"].startswith("text/html")
    status, headers, body = get(f"{served.address}/run.wasm")
    assert (headers["content-type"], body) == ("application/wasm", b"\0asm")
    assert get(f"{served.address}/nothing")[0] == 404
    assert get(f"{served.address}/../conftest.py")[0] == 404


def test_every_answer_forbids_browsers_to_ask_elsewhere(served):
    for path in ("/", "/nothing"):
        policy = get(served.address + path)[1]["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http" not in policy
        assert "*" not in policy


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example", "evil.example:7860"])
def test_a_strangers_name_for_this_machine_is_not_answered(served, name):
    assert get(served.address, Host=name)[0] == 421


@pytest.mark.parametrize("name", ["localhost", "localhost:123", "127.0.0.1", "[::1]:80"])
def test_the_machines_own_names_are(served, name):
    assert get(served.address, Host=name)[0] == 200


@pytest.mark.parametrize("page", ["http://evil.example", "null", "http://127.0.0.1:1", "file://"])
def test_another_page_in_the_same_browser_may_send_nothing(served, page):
    assert get(served.address, Origin=page)[0] == 421
    assert get(served.address, Origin=served.address)[0] == 200


def test_it_listens_to_this_machine_alone_unless_told_otherwise(served, serving, folder):
    assert not served.open_to_others
    with serving(folder, host="0.0.0.0") as wide:
        assert wide.open_to_others
        assert wide.address.startswith("http://127.0.0.1:")
        assert get(wide.address, Host="my-laptop.example")[0] == 200


def test_a_port_in_use_is_one_sentence(served):
    from safelight.app.server import Server

    port = int(served.address.rpartition(":")[2])
    with pytest.raises(ValueError, match=rf"^port {port} of 127\.0\.0\.1 is in use: .*{port + 1}"):
        Server(port=port)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"host": "192.0.2.1"}, "is not this machine"),
        ({"port": 65536}, "expected one from 0 to 65535"),
        ({"port": -1}, "expected one from 0 to 65535"),
    ],
)
def test_a_place_that_cannot_be_had_is_one_sentence(serving, where, message):
    from safelight.app.server import Server

    with pytest.raises(ValueError, match=message):
        Server(**{"port": 0, **where})


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (socket.gaierror(-2, "Name or service not known"), "is not this machine"),
        (PermissionError(errno.EACCES, "Permission denied"), "expected one above 1023"),
        (OSError(errno.ENOBUFS, "No buffer space"), r"\(No buffer space\)"),
    ],
)
def test_whatever_the_system_says_is_one_sentence(serving, monkeypatch, error, message):
    from safelight.app.server import Server

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(socket, "create_server", fail)
    with pytest.raises(ValueError, match=message):
        Server(port=80)
