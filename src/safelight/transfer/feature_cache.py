"""Activations on disk, found again only by everything they depend on.

An *entry* is a folder for one setting (network, weights, cut, size, view, precision ...); the key
is the SHA-256 of those facts, which lie readable beside it in `facts.json`. Inside, shards of
rows, each row addressed by the SHA-256 of its image. A shard is an `.npy` file and, written after
it, a manifest that names its rows: without its manifest it does not exist. All files get their
final name only when whole.

Adding a picture to a folder therefore costs one row; changing one byte of it, a miss.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safelight import assets, untrusted

logger = logging.getLogger(__name__)

DEFAULT_MAX_BYTES = 20 * 2**30
_SPARE_DISK_BYTES = 256 * 2**20
_KEY = re.compile(r"[0-9a-f]{40}")  # as of `facts_key`; folders of other names are somebody's own
_DOOMED = "doomed-"  # what the name of an entry begins with that is being removed
_MOST_OPEN = 64  # shards of an entry; systems allow 256 to 1,024 open files, and there are a dozen


class CacheError(RuntimeError):
    """The activation cache cannot be written or read; the message says where and how to mend it."""


@dataclasses.dataclass(frozen=True)
class EntrySummary:
    """One entry, as `safelight cache list` shows it; `last_used` in Unix seconds."""

    key: str
    facts: dict[str, Any]
    num_rows: int
    bytes: int
    last_used: float


def _storage_dtype(dtype: str) -> np.dtype:
    """How a dtype lies on disk: NumPy's own format does not know bfloat16."""
    return np.dtype(np.uint16 if dtype == "bfloat16" else dtype)


def _as_dtype(rows: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "bfloat16":
        return rows
    import ml_dtypes

    return rows.view(ml_dtypes.bfloat16)


def _write_json(path: Path, content: Any) -> None:
    temporary = path.with_name(f"tmp-{path.stem}-{uuid.uuid4().hex}.json")
    try:
        temporary.write_text(json.dumps(content, sort_keys=True, indent=1), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _file_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """A shard's manifest; `None` where it is gone, damaged, or not one."""
    try:
        facts = untrusted.read_json(path)
        found = {key: facts[key] for key in ("digests", "file_bytes", "sha256")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    digests = found["digests"]
    named = isinstance(digests, list) and all(isinstance(each, str) for each in digests)
    return found if named else None


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is damaged ({reason}): `safelight cache verify` deletes what is."


def _read_facts(path: Path) -> dict[str, Any]:
    """What an entry depends on.

    Raises:
        ValueError: It is something else.
    """
    facts = untrusted.read_json(path)
    shape = facts.get("row_shape") if isinstance(facts, dict) else None
    if not isinstance(shape, list) or not all(isinstance(side, int) for side in shape):
        raise ValueError(f"{path} holds no facts")
    _storage_dtype(str(facts.get("dtype")))
    return facts


class CacheEntry:
    """The rows of one setting.

    Args:
        folder: Where they lie.
        row_shape: Shape of one row.
        dtype: `"float32"`, `"bfloat16"` ...
    """

    def __init__(self, folder: Path, row_shape: tuple[int, ...], dtype: str) -> None:
        self.folder, self.row_shape, self.dtype = folder, row_shape, dtype
        self.row_bytes = int(np.prod(row_shape)) * _storage_dtype(dtype).itemsize
        self._index: dict[str, tuple[str, int]] = {}
        self._shards: dict[str, np.ndarray] = {}
        self._known: set[str] = set()
        self.refresh()

    def refresh(self) -> None:
        """Reads the manifests written since the last look, by this or another process."""
        for path in sorted(self.folder.glob("shard-*.json")):
            manifest = None if path.stem in self._known else _read_manifest(path)
            # A shard counts only if the file behind the manifest is as long as it should be.
            if manifest and _file_bytes(path.with_suffix(".npy")) == manifest["file_bytes"]:
                self._learn(path.stem, manifest["digests"])

    def __contains__(self, digest: str) -> bool:
        return digest in self._index

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those of `digests` without a row, each once, in their order."""
        return [digest for digest in dict.fromkeys(digests) if digest not in self._index]

    def append(self, digests: Sequence[str], rows: np.ndarray) -> None:
        """Adds a shard.

        Args:
            digests: One per row.
            rows: `(len(digests), *row_shape)` in the entry's dtype.

        Raises:
            CacheError: The disk is full or the folder cannot be written; nothing half-written
                remains.
        """
        if rows.shape != (len(digests), *self.row_shape):
            raise ValueError(
                f"rows has shape {rows.shape}: expected {(len(digests), *self.row_shape)}."
            )
        stored = np.ascontiguousarray(rows).view(_storage_dtype(self.dtype))
        facts: dict[str, Any] = {
            "digests": list(digests),
            "sha256": hashlib.sha256(stored.data).hexdigest(),
        }
        # Named after what it holds: whoever computed it, and when, leaves no trace.
        name = f"shard-{facts_key(facts)}"
        temporary = self.folder / f"tmp-{name}.npy"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                np.save(file, stored)
                file.flush()
                os.fsync(file.fileno())
            facts["file_bytes"] = temporary.stat().st_size
            os.replace(temporary, self.folder / f"{name}.npy")
            _write_json(self.folder / f"{name}.json", facts)
        except OSError as error:
            for leftover in (temporary, self.folder / f"{name}.npy"):
                leftover.unlink(missing_ok=True)
            raise CacheError(
                f"could not write {stored.nbytes / 1e6:.0f} MB of activations to {self.folder}: "
                f"{error.strerror or error}. Free some space (`safelight cache clear`) or point "
                "SAFELIGHT_HOME to another disk; what was extracted before is kept."
            ) from error
        # Not `refresh`, which looks at all shards: a million rows are thousands of these.
        self._learn(name, digests)

    def _learn(self, shard: str, digests: Iterable[str]) -> None:
        self._known.add(shard)
        for row, digest in enumerate(digests):
            self._index.setdefault(digest, (shard, row))

    def remove_leftovers(self) -> None:
        """Deletes what a killed process left; call it only while holding the entry's lock."""
        # Not `tmp-facts-*`: another process may be writing it, before it asks for the lock.
        for path in self.folder.glob("tmp-shard-*"):
            path.unlink(missing_ok=True)
        for path in self.folder.glob("shard-*"):
            if path.stem not in self._known:
                path.unlink(missing_ok=True)

    def gather(self, digests: Sequence[str]) -> np.ndarray:
        """The rows of these images, read through memory maps.

        Returns:
            `(len(digests), *row_shape)` in the entry's dtype.

        Raises:
            KeyError: An image has no row; see `missing`.
        """
        places: dict[str, list[tuple[int, int]]] = {}
        for position, digest in enumerate(digests):
            shard, row = self._index[digest]
            places.setdefault(shard, []).append((position, row))
        out = np.empty((len(digests), *self.row_shape), _storage_dtype(self.dtype))
        for shard, pairs in places.items():
            positions, rows = np.array(pairs).T
            order = np.argsort(rows)
            there = self._open(shard)
            if rows.max() >= len(there):
                raise CacheError(
                    _damaged(self.folder / f"{shard}.npy", f"it has {len(there)} rows")
                )
            out[positions[order]] = there[rows[order]]
        return _as_dtype(out, self.dtype)

    def hold(self, digests: Iterable[str]) -> None:
        """Opens the shards of these images: they stay readable if another process drops them.

        The last few dozen of them, where there are more: an open one is an open file.
        """
        shards = dict.fromkeys(self._index[digest][0] for digest in digests)
        for shard in list(shards)[-_MOST_OPEN:]:
            self._open(shard)

    def _open(self, shard: str) -> np.ndarray:
        if shard not in self._shards:
            if len(self._shards) >= _MOST_OPEN:
                del self._shards[next(iter(self._shards))]
            path = self.folder / f"{shard}.npy"
            try:
                rows = untrusted.map_array(path)
            except ValueError as error:
                raise CacheError(_damaged(path, str(error))) from error
            fits = rows.ndim > 0 and rows.shape[1:] == self.row_shape
            if not fits or rows.dtype != _storage_dtype(self.dtype):
                raise CacheError(_damaged(path, f"it holds {rows.dtype} {rows.shape}"))
            self._shards[shard] = rows
        return self._shards[shard]

    def damaged_shards(self) -> list[str]:
        """Names of shards whose bytes no longer have the SHA-256 of their manifest."""
        damaged = []
        for path in sorted(self.folder.glob("shard-*.json")):
            manifest = _read_manifest(path)
            try:
                rows = untrusted.map_array(path.with_suffix(".npy"))
                found = hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()
            except (OSError, ValueError):
                found = ""
            if manifest is None or found != manifest["sha256"]:
                damaged.append(path.stem)
        return damaged

    def pack(self, rows: np.ndarray) -> np.ndarray:
        """Rows as they lie on disk, in a dtype that every program knows."""
        kept = rows if str(rows.dtype) == self.dtype else rows.astype(self.dtype)
        return np.ascontiguousarray(kept).view(_storage_dtype(self.dtype))

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        """Of `pack`, the inverse."""
        return _as_dtype(packed, self.dtype)

    def drop(self, shards: Iterable[str]) -> None:
        """Deletes shards, their manifests first: without one a shard does not count."""
        for name in shards:
            (self.folder / f"{name}.json").unlink(missing_ok=True)
            (self.folder / f"{name}.npy").unlink(missing_ok=True)


class ShardWriter:
    """Collects rows of several entries and writes their shards together.

    All entries of one pass are flushed at the same moment, so that an interruption leaves them
    equally long and the pass goes on from one place. On the way out, whatever the reason, what is
    whole is kept. Where a shard ends depends on the number of rows alone, never on a clock, so
    that one pass leaves the same shards wherever it is computed.

    Args:
        entries: Of one pass.
        rows_per_shard: A whole number of batches.
    """

    def __init__(self, entries: Sequence[CacheEntry], rows_per_shard: int) -> None:
        self._entries, self._limit = entries, rows_per_shard
        self._digests: list[str] = []
        self._rows: list[list[np.ndarray]] = [[] for _ in entries]

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After a failed write another would only hide the first error.
        if kind is None or not issubclass(kind, CacheError):
            self.flush()

    def add(self, digests: Sequence[str], rows: Sequence[np.ndarray]) -> None:
        """Takes a batch: one array for each entry, a row for each digest."""
        self._digests += digests
        for kept, new, entry in zip(self._rows, rows, self._entries, strict=True):
            kept.append(new if str(new.dtype) == entry.dtype else new.astype(entry.dtype))
        if len(self._digests) >= self._limit:
            self.flush()

    def flush(self) -> None:
        """Writes what was collected as one shard of each entry."""
        if self._digests:
            for entry, kept in zip(self._entries, self._rows, strict=True):
                self._append_new(entry, np.concatenate(kept))
        self._digests, self._rows = [], [[] for _ in self._entries]

    def _append_new(self, entry: CacheEntry, rows: np.ndarray) -> None:
        """Some entries of a pass may already hold a row that others lacked."""
        fresh = [i for i, digest in enumerate(self._digests) if digest not in entry]
        if fresh:
            entry.append([self._digests[i] for i in fresh], rows[fresh])


class FeatureCache:
    """A folder of entries with a size limit; the least recently used ones go first.

    Args:
        root: Default: `features` in Safelight's cache folder.
        max_bytes: Default: the environment variable SAFELIGHT_CACHE_LIMIT (in GB), else 20 GiB.
    """

    def __init__(self, root: Path | None = None, *, max_bytes: int | None = None) -> None:
        self.root = Path(root) if root is not None else assets.cache_dir() / "features"
        self.max_bytes = _limit_from_environment() if max_bytes is None else max_bytes

    def entry(self, facts: dict[str, Any], row_shape: tuple[int, ...], dtype: str) -> CacheEntry:
        """The entry for a setting, made if there is none.

        Args:
            facts: Everything that the rows depend on besides the image; JSON values only.
            row_shape: Shape of one row.
            dtype: Its dtype's name.
        """
        facts = {**facts, "row_shape": list(row_shape), "dtype": dtype}
        folder = self.root / facts_key(facts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "facts.json").exists():
                _write_json(folder / "facts.json", facts)
            with contextlib.suppress(OSError):  # somebody else's, to be read
                os.utime(folder)
        except OSError as error:
            raise CacheError(
                f"the activation cache {self.root} cannot be written ({error.strerror}): expected "
                "a folder of yours; point SAFELIGHT_HOME to one."
            ) from error
        return CacheEntry(folder, row_shape, dtype)

    @contextlib.contextmanager
    def locked(self, entries: Sequence[CacheEntry]) -> Iterator[None]:
        """Holds the entries' locks: of two processes one extracts, and the other finds.

        A cache that may only be read, somebody else's, is read without, and what has to be written
        there fails in `append`.
        """
        from filelock import FileLock

        alone = True
        with contextlib.ExitStack() as stack:
            # In one order everywhere: two processes cannot block each other.
            for folder in sorted({entry.folder for entry in entries}):
                try:
                    stack.enter_context(FileLock(folder.with_suffix(".lock")))
                except OSError:
                    alone = False
            for entry in entries:
                entry.refresh()
                if alone:
                    entry.remove_leftovers()
            yield

    def make_room(self, needed_bytes: int, keep: Sequence[CacheEntry]) -> None:
        """Evicts least recently used entries until `needed_bytes` more fit.

        Raises:
            CacheError: They do not fit under the limit or on the disk even so.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        for doomed in self.root.glob(f"{_DOOMED}*"):  # whoever was removing it was killed
            shutil.rmtree(doomed, ignore_errors=True)
        kept = {entry.folder.name for entry in keep}
        entries = self.entries()
        droppable = [entry for entry in reversed(entries) if entry.key not in kept]
        within_limit = self.max_bytes - sum(entry.bytes for entry in entries)
        room = min(within_limit, shutil.disk_usage(self.root).free - _SPARE_DISK_BYTES)
        # Looked at first: what would not fit even so is no reason to drop anything.
        if needed_bytes <= room + sum(entry.bytes for entry in droppable):
            for entry in droppable:
                if needed_bytes > room:
                    logger.info("out of room: dropping %s (%d rows)", entry.key, entry.num_rows)
                    self.remove(entry.key)
                    room += entry.bytes
        if needed_bytes > room:
            raise CacheError(
                f"the activations need {needed_bytes / 1e9:.2f} GB in {self.root}, but there is "
                f"room for {max(0, room) / 1e9:.2f} GB (limit {self.max_bytes / 1e9:.1f} GB). Use "
                "fewer views, a smaller image size or a deeper cut, raise SAFELIGHT_CACHE_LIMIT "
                "(GB), or point SAFELIGHT_HOME to a larger disk."
            )

    def entries(self) -> list[EntrySummary]:
        """All entries, newest use first; a folder without facts is not one."""
        found = []
        for facts_file in self.root.glob("*/facts.json"):
            folder = facts_file.parent
            if not _KEY.fullmatch(folder.name):
                continue
            with contextlib.suppress(OSError, ValueError, TypeError):
                found.append(
                    EntrySummary(
                        folder.name,
                        _read_facts(facts_file),
                        _count_rows(folder),
                        sum(path.stat().st_size for path in folder.iterdir()),
                        folder.stat().st_mtime,
                    )
                )
        return sorted(found, key=lambda entry: -entry.last_used)

    def remove(self, key: str) -> None:
        """Deletes one entry: renamed first, so that a reader never meets half of it."""
        doomed = self.root / f"{_DOOMED}{uuid.uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.root / key, doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def verify(self) -> dict[str, int]:
        """Reads every shard again and deletes those whose bytes have changed on the disk.

        Returns:
            The keys of all entries, and how many of their shards were damaged; the rows that are
            gone are computed again when they are needed.
        """
        damaged = {}
        for summary in self.entries():
            facts = summary.facts
            shape, dtype = tuple(facts["row_shape"]), str(facts["dtype"])
            entry = CacheEntry(self.root / summary.key, shape, dtype)
            shards = entry.damaged_shards()
            with self.locked([entry]):
                entry.drop(shards)
            damaged[summary.key] = len(shards)
        return damaged

    def clear(self) -> tuple[int, int]:
        """Deletes every entry, broken ones too; returns how many were whole, and their bytes."""
        entries = self.entries()
        for folder in self.root.glob("*/"):
            if _KEY.fullmatch(folder.name) or folder.name.startswith(_DOOMED):
                self.remove(folder.name)
        return len(entries), sum(entry.bytes for entry in entries)


def facts_key(facts: dict[str, Any]) -> str:
    """The key of a setting: SHA-256 of its facts as canonical JSON, 40 hex digits of it."""
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:40]


def _count_rows(folder: Path) -> int:
    manifests = (_read_manifest(path) for path in folder.glob("shard-*.json"))
    return sum(len(manifest["digests"]) for manifest in manifests if manifest is not None)


def _limit_from_environment() -> int:
    text = os.environ.get("SAFELIGHT_CACHE_LIMIT")
    if not text:
        return DEFAULT_MAX_BYTES
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 <= limit < math.inf:
        raise ValueError(
            f"SAFELIGHT_CACHE_LIMIT={text!r} is no size: expected gigabytes, 0 or more, such as 20."
        )
    return int(limit * 1e9)
