import errno
import json
import os
import shutil
from collections import namedtuple

import ml_dtypes
import numpy as np
import pytest

from safelight.transfer import feature_cache
from safelight.transfer.feature_cache import CacheError, FeatureCache

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
Usage = namedtuple("Usage", "total used free")


def rows_of(digests, shape=(2, 3), dtype="float32") -> np.ndarray:
    return np.stack([np.full(shape, int(d), DTYPES[dtype]) for d in digests])


def make_entry(cache: FeatureCache, name: str = "a", *, num_rows: int = 4, used: float = 0.0):
    entry = cache.entry({"name": name}, (2, 3), "float32")
    digests = [str(i) for i in range(num_rows)]
    entry.append(digests, rows_of(digests))
    os.utime(entry.folder, (used, used))
    return entry


def names(cache: FeatureCache) -> list[str]:
    return [entry.facts["name"] for entry in cache.entries()]


def contents(cache: FeatureCache) -> set[str]:
    return {str(p.relative_to(cache.root)) for p in cache.root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_come_back_in_any_order_from_any_shard(cache, dtype):
    entry = cache.entry({"n": 1}, (2, 3), dtype)
    for digests in (["5", "1"], ["7"], ["3", "2", "9"]):
        entry.append(digests, rows_of(digests, dtype=dtype))
    again = cache.entry({"n": 1}, (2, 3), dtype)
    wanted = ["9", "1", "1", "7", "5", "9"]
    found = again.gather(wanted)
    assert found.dtype == DTYPES[dtype]
    np.testing.assert_array_equal(found, rows_of(wanted, dtype=dtype))
    assert again.missing(["4", "9", "4", "0"]) == ["4", "0"]
    assert "9" in again
    assert "4" not in again
    with pytest.raises(KeyError):
        again.gather(["4"])


def test_another_process_rows_are_seen_after_a_refresh(cache):
    entry = cache.entry({"name": "a"}, (2, 3), "float32")
    make_entry(cache)
    assert entry.missing(["0"]) == ["0"]
    entry.refresh()
    assert entry.missing(["0"]) == []


@pytest.mark.parametrize(
    ("other", "shape", "dtype"),
    [({"a": 2}, (2,), "float32"), ({"b": 1}, (2,), "float32"), ({"a": 1}, (3,), "float32"),
     ({"a": 1}, (2,), "bfloat16")],
)  # fmt: skip
def test_other_facts_are_another_entry(cache, other, shape, dtype):
    first = cache.entry({"a": 1, "c": 0}, (2,), "float32").folder
    assert cache.entry({"c": 0, "a": 1}, (2,), "float32").folder == first
    assert cache.entry({"c": 0, **other}, shape, dtype).folder != first


def test_rows_of_another_shape_are_refused(cache):
    with pytest.raises(ValueError, match="expected"):
        cache.entry({}, (2, 3), "float32").append(["1"], np.zeros((1, 3, 2), "float32"))


def truncate(path):
    path.with_suffix(".npy").write_bytes(path.with_suffix(".npy").read_bytes()[:-1])


DAMAGE = {
    "truncated": truncate,
    "no rows": lambda path: path.with_suffix(".npy").unlink(),
    "no manifest": lambda path: path.unlink(),
    "empty manifest": lambda path: path.write_text(""),
    "half a manifest": lambda path: path.write_text(path.read_text()[:40]),
    "foreign manifest": lambda path: path.write_text("[]"),
    "manifest of nothing": lambda path: path.write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_shard_is_missed_and_cleared_away(cache, damage):
    entry = make_entry(cache)
    whole = contents(cache)
    entry.append(["8", "9"], rows_of(["8", "9"]))
    added = next(p for p in entry.folder.glob("shard-*.json") if '"8"' in p.read_text())
    damage(added)
    again = cache.entry({"name": "a"}, (2, 3), "float32")
    assert again.missing(["0", "8", "9"]) == ["8", "9"]
    assert [entry.facts["name"] for entry in cache.entries()] == ["a"]
    with cache.locked([again]):
        pass
    assert {file for file in contents(cache) if not file.endswith(".lock")} == whole
    again.append(["8", "9"], rows_of(["8", "9"]))
    np.testing.assert_array_equal(again.gather(["9", "0"]), rows_of(["9", "0"]))


def test_a_flipped_byte_is_found_by_its_hash(cache):
    entry = make_entry(cache)
    assert entry.damaged_shards() == []
    path = next(entry.folder.glob("shard-*.npy"))
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert entry.damaged_shards() == [path.stem]


def test_verify_deletes_what_has_changed_and_nothing_else(cache):
    sound, flipped, short = (make_entry(cache, name) for name in "abc")
    flipped.append(["8"], rows_of(["8"]))
    path = flipped.folder / f"{flipped._index['8'][0]}.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    truncate(next(short.folder.glob("shard-*.json")))
    counts = cache.verify()
    assert counts == {sound.folder.name: 0, flipped.folder.name: 1, short.folder.name: 1}
    fresh = [cache.entry({"name": name}, (2, 3), "float32") for name in "abc"]
    assert [entry.missing(["0", "8"]) for entry in fresh] == [["8"], ["8"], ["0", "8"]]
    assert set(cache.verify().values()) == {0}


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def fail_at(monkeypatch, place: str):
    if place == "rows":
        monkeypatch.setattr(feature_cache.np, "save", full_disk)
    elif place == "manifest":
        monkeypatch.setattr(feature_cache.Path, "write_text", full_disk)
    else:
        replace, calls = os.replace, []

        def fail(source, target):
            calls.append(target)
            return full_disk() if len(calls) == int(place[-1]) else replace(source, target)

        monkeypatch.setattr(feature_cache.os, "replace", fail)


@pytest.mark.parametrize("place", ["rows", "manifest", "rename 1", "rename 2"])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(cache, monkeypatch, place):
    entry = make_entry(cache)
    before = contents(cache)
    with monkeypatch.context() as patch:
        fail_at(patch, place)
        with pytest.raises(
            CacheError, match=r"No space left.*safelight cache clear.*SAFELIGHT_HOME"
        ):
            entry.append(["8"], rows_of(["8"]))
    assert contents(cache) == before
    assert cache.entry({"name": "a"}, (2, 3), "float32").missing(["0", "8"]) == ["8"]
    entry.append(["8"], rows_of(["8"]))
    np.testing.assert_array_equal(entry.gather(["8", "0"]), rows_of(["8", "0"]))


def test_a_cache_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CacheError, match=r"cannot be written .*SAFELIGHT_HOME"):
        FeatureCache(tmp_path / "file").entry({}, (2,), "float32")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_says_so(cache):
    entry = make_entry(cache)
    entry.folder.chmod(0o500)
    try:
        with pytest.raises(CacheError, match="could not write"):
            entry.append(["9"], rows_of(["9"]))
    finally:
        entry.folder.chmod(0o700)


USED = {"a": 200.0, "b": 100.0, "c": 300.0}


@pytest.fixture
def three(cache):
    """Entries a, b, c of about equal size, b the one longest unused, c the latest."""
    for name, used in USED.items():
        make_entry(cache, name, used=used)
    return cache


@pytest.mark.parametrize(
    ("spare_entries", "keep", "left"),
    [
        (0.0, "", ["c", "a", "b"]),
        (0.5, "", ["c", "a"]),
        (1.5, "", ["c"]),
        (1.5, "b", ["b"]),
        (0.5, "b", ["c", "b"]),
        (0.5, "ab", ["a", "b"]),
    ],
)
def test_the_longest_unused_go_first_and_those_in_use_stay(three, spare_entries, keep, left):
    size = three.entries()[0].bytes
    three.max_bytes = sum(entry.bytes for entry in three.entries())
    kept = []
    for name in keep:
        kept.append(three.entry({"name": name}, (2, 3), "float32"))
        os.utime(kept[-1].folder, (USED[name], USED[name]))
    three.make_room(int(spare_entries * size), kept)
    assert names(three) == left


@pytest.mark.parametrize("limited_by", ["limit", "disk"])
def test_what_cannot_fit_drops_nothing(three, monkeypatch, limited_by):
    if limited_by == "limit":
        three.max_bytes = 1000
    else:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 0))
    with pytest.raises(CacheError, match=r"need 5.00 GB.*room for 0.00 GB.*SAFELIGHT_CACHE_LIMIT"):
        three.make_room(5 * 10**9, [])
    assert names(three) == ["c", "a", "b"]


def test_a_disk_that_is_nearly_full_makes_room_too(three, monkeypatch):
    size = three.entries()[0].bytes
    free = feature_cache._SPARE_DISK_BYTES + size // 2
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - free, free))
    three.make_room(size, [])
    assert names(three) == ["c", "a"]


def test_rows_in_use_stay_readable_when_another_process_drops_them(cache):
    entry = make_entry(cache)
    entry.hold(["0", "3"])
    assert cache.clear()[0] == 1
    np.testing.assert_array_equal(entry.gather(["3", "1"]), rows_of(["3", "1"]))


def test_clear_takes_broken_entries_too(three):
    sizes = sum(entry.bytes for entry in three.entries())
    (three.root / "doomed-1").mkdir()
    (three.root / ("0" * 40)).mkdir()
    assert three.clear() == (3, sizes)
    assert contents(three) == set()
    assert not list(three.root.iterdir())


def test_clear_leaves_what_is_not_ours(three):
    """SAFELIGHT_HOME may be a disk on which somebody keeps features of their own."""
    (three.root / "resnet").mkdir()
    (three.root / "resnet" / "rows.npy").write_bytes(b"work")
    three.clear()
    assert [path.name for path in three.root.iterdir()] == ["resnet"]
    assert (three.root / "resnet" / "rows.npy").read_bytes() == b"work"


def test_an_entry_tells_what_it_is_and_using_it_makes_it_young(three):
    oldest = three.entries()[-1]
    assert (oldest.facts["name"], oldest.num_rows, oldest.last_used) == ("b", 4, 100.0)
    assert oldest.bytes == sum(p.stat().st_size for p in (three.root / oldest.key).iterdir())
    assert oldest.key == feature_cache.facts_key(oldest.facts)
    assert oldest.facts == json.loads((three.root / oldest.key / "facts.json").read_text())
    three.entry({"name": "b"}, (2, 3), "float32")
    assert names(three)[0] == "b"


@pytest.mark.parametrize(
    ("text", "limit"), [("", feature_cache.DEFAULT_MAX_BYTES), ("2.5", 2_500_000_000), ("0", 0)]
)
def test_the_limit_comes_from_the_environment(monkeypatch, tmp_path, text, limit):
    monkeypatch.setenv("SAFELIGHT_CACHE_LIMIT", text)
    assert FeatureCache(tmp_path).max_bytes == limit
    assert FeatureCache(tmp_path, max_bytes=7).max_bytes == 7


@pytest.mark.parametrize("text", ["20GB", "-1", "nan", "inf", "1e999"])
def test_a_limit_that_is_no_size_is_refused(monkeypatch, text):
    monkeypatch.setenv("SAFELIGHT_CACHE_LIMIT", text)
    with pytest.raises(ValueError, match=f"SAFELIGHT_CACHE_LIMIT='{text}'.*gigabytes"):
        FeatureCache()


def test_the_folder_follows_safelight_home(monkeypatch, tmp_path):
    monkeypatch.setenv("SAFELIGHT_HOME", str(tmp_path / "home"))
    assert FeatureCache().root == tmp_path / "home" / "features"
