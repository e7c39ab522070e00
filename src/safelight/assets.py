"""Fetch, verify and keep the weights and data sets that Safelight uses.

Each asset is a row of assets.toml. Whatever source it came from, the same content is kept in one
cache folder, checked by SHA-256; a file or folder with its final name there is always whole.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safelight import untrusted, weight_files
from safelight.asset_sources import (
    Progress,
    RemoteFile,
    Source,
    SourceError,
    check_file,
    compare_digests,
    extract,
    list_digests,
    obtain,
)
from safelight.files import write_text

logger = logging.getLogger(__name__)


class AssetError(RuntimeError):
    """An asset cannot be had or is not what it should be; the message tells how to mend it."""


@dataclass(frozen=True)
class Asset:
    """One row of assets.toml.

    Args:
        name: what `fetch` is called with.
        description: one line.
        licence: SPDX identifier.
        attribution: whom to name.
        citation: the paper.
        kind: "file", "folder" or "weights", see assets.toml.
        file: name in the cache.
        bytes: size in the cache.
        content: expected hash of what is kept ("" where none is published).
        sources: where to seek it, in order.
        arrays: name to SHA-256 for kind "weights".
    """

    name: str
    description: str
    licence: str
    attribution: str
    citation: str
    kind: str
    file: str
    bytes: int
    content: str
    sources: tuple[Source, ...]
    arrays: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Where it is kept once fetched."""
        return assets_dir() / self.file

    @property
    def stamp_path(self) -> Path:
        """The small file that records a verified fetch."""
        return assets_dir() / f"{self.name}.stamp.json"


@dataclass(frozen=True)
class AssetStatus:
    """What a user wants to know about one asset.

    Args:
        name: what `fetch` is called with.
        description: one line.
        licence: SPDX identifier.
        attribution: whom to name.
        bytes: size in the cache.
        cached: whether it is there, verified when it arrived.
        path: where it is or would be kept.
    """

    name: str
    description: str
    licence: str
    attribution: str
    bytes: int
    cached: bool
    path: Path


def cache_dir() -> Path:
    """Give the folder where Safelight keeps what can be had again.

    Returns:
        The environment variable SAFELIGHT_HOME if it is set, else the platform's cache folder.
    """
    if home := os.environ.get("SAFELIGHT_HOME"):
        return Path(home).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("safelight", appauthor=False))


def assets_dir() -> Path:
    """Give the folder of fetched assets.

    Returns:
        A folder below `cache_dir()`; it may not exist yet.
    """
    return cache_dir() / "assets"


def manual_dir() -> Path:
    """Give the folder where a user may put downloaded files by hand, or folders named as assets.

    Returns:
        A folder below `cache_dir()`; it may not exist yet.
    """
    return cache_dir() / "manual"


def load_table(path: Path) -> Mapping[str, Asset]:
    """Read a table of assets; use it to fetch from rows of one's own.

    Args:
        path: a file like assets.toml.

    Returns:
        Name to asset, in the file's order.
    """
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    client = table.get("npm_client", {})
    requirement = ""
    if client:
        hashes = "".join(f" --hash=sha256:{digest}" for digest in client["sha256"])
        requirement = f"{client['package']}=={client['version']}{hashes}"
    rows = table["assets"].items()
    return MappingProxyType({name: _asset_row(name, row, requirement) for name, row in rows})


def _asset_row(name: str, row: Mapping[str, Any], client: str) -> Asset:
    values = dict(row)
    sources = tuple(_source_row(source, client) for source in values.pop("sources"))
    arrays = values.get("arrays", {})
    lines = "".join(f"{digest}  {array}\n" for array, digest in arrays.items())
    if arrays:
        values["content"] = f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
    return Asset(name=name, sources=sources, **values)


def _source_row(row: Mapping[str, Any], client: str) -> Source:
    values = dict(row)
    files = tuple(RemoteFile(**file) for file in values.pop("files"))
    values["members"] = tuple(values.get("members", ()))
    return Source(files=files, client=client if values["kind"] == "npm" else "", **values)


ASSETS = load_table(Path(__file__).with_name("assets.toml"))


def _find(name: str, table: Mapping[str, Asset]) -> Asset:
    if name not in table:
        raise AssetError(f"there is no asset {name!r}; there are {', '.join(table)}")
    return table[name]


def fetch(
    name: str, *, progress: Progress | None = None, table: Mapping[str, Asset] = ASSETS
) -> Path:
    """Give the path of an asset, fetching it first where it is not in the cache.

    Files in `manual_dir()` are used before any network; with SAFELIGHT_OFFLINE=1 the network is
    not used at all. Processes that fetch the same asset at once wait for the first.

    Args:
        name: a key of the table.
        progress: called with (step, bytes done, bytes in total or 0) while bytes arrive.
        table: rows to fetch from.

    Returns:
        For kind "file" and "weights" a file, for kind "folder" a folder.

    Raises:
        AssetError: if no source delivers it; names every source with its reason and the way by
            hand.
    """
    asset = _find(name, table)
    if _is_cached(asset):
        return asset.path
    try:
        with _locked(asset):
            if not _is_cached(asset) and not _adopt(asset):
                _fetch_from_sources(asset, progress)
    except OSError as error:
        raise AssetError(
            f"{name} cannot be kept in {assets_dir()} ({error.strerror or error}); make room or "
            "set SAFELIGHT_HOME to a folder that can be written to"
        ) from error
    return asset.path


def read_weights(
    name: str, *, progress: Progress | None = None, table: Mapping[str, Asset] = ASSETS
) -> dict[str, NDArray[np.float32]]:
    """Give a network's weights as arrays, fetched where needed and verified array by array.

    Args:
        name: an asset of kind "weights", or a Keras .h5 file.
        progress: as in `fetch`.
        table: rows to fetch from.

    Returns:
        "layer/kernel" (kh, kw, in, out) and "layer/bias" (out,), float32, in Keras' layout and
        order.

    Raises:
        AssetError: if it cannot be had, holds no weights, or is damaged.
    """
    asset = _find(name, table)
    path = fetch(name, progress=progress, table=table)
    try:
        if asset.kind == "weights":
            return weight_files.check_arrays(weight_files.read_npz(path), asset.arrays)
        if path.suffix == ".h5":
            return weight_files.read_h5(path)
    except ValueError as error:
        raise AssetError(_damaged(asset, str(error))) from error
    raise AssetError(f"{name} holds no weights")


def list_assets(*, table: Mapping[str, Asset] = ASSETS) -> tuple[AssetStatus, ...]:
    """Say for each asset what it is and whether it is in the cache.

    Args:
        table: rows to list.

    Returns:
        One row each, in the table's order.
    """
    return tuple(
        AssetStatus(
            name=asset.name,
            description=asset.description,
            licence=asset.licence,
            attribution=asset.attribution,
            bytes=asset.bytes,
            cached=_is_cached(asset),
            path=asset.path,
        )
        for asset in table.values()
    )


def verify(name: str, *, table: Mapping[str, Asset] = ASSETS) -> Path:
    """Hash everything of a cached asset again.

    Args:
        name: a key of the table.
        table: rows to verify against.

    Returns:
        Its path.

    Raises:
        AssetError: if it is not in the cache, or naming what is damaged.
    """
    asset = _find(name, table)
    if not asset.path.exists():
        raise AssetError(
            f"{name} is not in the cache ({asset.path}); `safelight assets fetch {name}` gets it"
        )
    stamp = _read_stamp(asset)
    try:
        listing = list_digests(asset.path)
        if stamp:
            compare_digests(listing, stamp["files"])
        _check_content(asset, asset.path, listing)
    except SourceError as error:
        raise AssetError(_damaged(asset, str(error))) from error
    return asset.path


def remove(name: str, *, table: Mapping[str, Asset] = ASSETS) -> None:
    """Delete an asset from the cache, if it is there.

    Args:
        name: a key of the table.
        table: rows to look it up in.
    """
    asset = _find(name, table)
    with _locked(asset):
        _discard(asset)


def _damaged(asset: Asset, reason: str) -> str:
    return f"{asset.name} in {asset.path} is damaged: {reason}; delete it and it is fetched again"


def _discard(asset: Asset) -> None:
    # The stamp goes first: without it nothing under the final name counts as verified.
    asset.stamp_path.unlink(missing_ok=True)
    if asset.path.is_dir():
        doomed = Path(tempfile.mkdtemp(prefix=f".{asset.name}.", suffix=".part", dir=assets_dir()))
        os.replace(asset.path, doomed / "old")
        shutil.rmtree(doomed)
    else:
        asset.path.unlink(missing_ok=True)


def _make_way(asset: Asset) -> None:
    """Drop what is damaged, now that another is there; what has no stamp may be somebody's own."""
    if asset.stamp_path.exists() or not asset.path.exists():
        _discard(asset)
        return
    number, aside = 1, asset.path
    while aside.exists():
        number, aside = number + 1, asset.path.with_name(f"{asset.path.name}.set-aside-{number}")
    os.replace(asset.path, aside)
    logger.warning("%s was in the way and is now %s", asset.path, aside)


@contextmanager
def _locked(asset: Asset) -> Iterator[None]:
    import filelock

    assets_dir().mkdir(parents=True, exist_ok=True)
    # The system drops the lock of a killed process, so a leftover lock file means nothing.
    with filelock.FileLock(assets_dir() / f".{asset.name}.lock"):
        for leftover in assets_dir().glob(f".{asset.name}.*.part"):
            shutil.rmtree(leftover, ignore_errors=True)
        for leftover in assets_dir().glob(f".{asset.name}.stamp.*.partial.json"):
            leftover.unlink(missing_ok=True)
        yield


def _check_content(asset: Asset, path: Path, listing: Mapping[str, tuple[int, str]]) -> None:
    """Raise SourceError unless a path holds exactly the asset, whatever source it came from."""
    if asset.kind == "folder":
        lines = "".join(f"{digest}  {name}\n" for name, (_, digest) in sorted(listing.items()))
        if f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}" != asset.content:
            raise SourceError(f"its {len(listing)} files together are not the expected ones")
    elif asset.kind == "weights":
        try:
            weight_files.check_arrays(weight_files.read_npz(path), asset.arrays)
        except ValueError as error:
            raise SourceError(str(error)) from error
    else:
        check_file(RemoteFile(name=asset.file, hash=asset.content, size=asset.bytes), path)


def _read_stamp(asset: Asset) -> dict[str, Any] | None:
    try:
        stamp = untrusted.read_json(asset.stamp_path)
        known = {name: (int(size), str(digest)) for name, (size, digest) in stamp["files"].items()}
        return {**stamp, "files": known} if stamp["content"] == asset.content else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _is_cached(asset: Asset) -> bool:
    """Tell by stamp and sizes; hashing 90 MB at every start would be felt."""
    stamp = _read_stamp(asset)
    if stamp is None:
        return False
    root = asset.path if asset.kind == "folder" else asset.path.parent
    try:
        files = stamp["files"].items()
        return all((root / name).stat().st_size == size for name, (size, _) in files)
    except OSError:
        return False


def _write_stamp(asset: Asset, listing: Mapping[str, tuple[int, str]], source: str) -> None:
    stamp = {"content": asset.content, "source": source, "files": listing}
    write_text(asset.stamp_path, json.dumps(stamp))


def _adopt(asset: Asset) -> bool:
    """Keep what lost its stamp to a kill if it is right."""
    if not asset.path.exists():
        return False
    try:
        listing = list_digests(asset.path)
        _check_content(asset, asset.path, listing)
    except SourceError as error:
        logger.warning("%s is damaged (%s) and is fetched again", asset.path, error)
        return False
    _write_stamp(asset, listing, "found in the cache")
    return True


def _fetch_from_sources(asset: Asset, progress: Progress | None) -> None:
    reasons: list[str] = []
    for source in asset.sources:
        for folder in (manual_dir() / asset.name, manual_dir()):  # MNIST's files have namesakes
            there = all((folder / file.name).is_file() for file in source.files)
            if there and _try_source(asset, source, reasons, progress, folder):
                return
    for source in asset.sources:
        if source.needs_network and os.environ.get("SAFELIGHT_OFFLINE", "0") not in ("", "0"):
            reasons.append(f"{source.label}: SAFELIGHT_OFFLINE is set")
        elif _try_source(asset, source, reasons, progress, None):
            return
    raise AssetError(_not_found(asset, reasons))


def _try_source(
    asset: Asset, source: Source, reasons: list[str], progress: Progress | None, given: Path | None
) -> bool:
    """Fetch, check and publish from one source; on failure add its reason and say False."""
    label = f"{given / source.files[0].name}" if given else source.label
    work = Path(tempfile.mkdtemp(prefix=f".{asset.name}.", suffix=".part", dir=assets_dir()))
    arrived, folder = given is not None, given or work
    try:
        if not arrived:
            obtain(source, work, progress=progress)
            arrived = True
        files = [check_file(file, folder / file.name) for file in source.files]
        content = _arrange(asset, source, files, work)
        listing = list_digests(content)
        if asset.kind != "folder":
            listing = {asset.file: listing[content.name]}
        _check_content(asset, content, listing)
        _make_way(asset)
        os.replace(content, asset.path)
        shutil.rmtree(work, ignore_errors=True)  # with a stamp nobody looks for leftovers again
        _write_stamp(asset, listing, label)
        return True
    except SourceError as error:
        # A host that cannot be reached is routine; wrong bytes are not.
        level = logging.WARNING if arrived else logging.INFO
        logger.log(level, "%s was not taken from %s: %s", asset.name, label, error)
        reasons.append(f"{error}" if f"{error}".startswith(label) else f"{label}: {error}")
        return False
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _arrange(asset: Asset, source: Source, files: list[Path], work: Path) -> Path:
    """Turn a source's files into the one file or folder that is kept, still in `work`."""
    content = work / "content"
    content.mkdir()
    # Anything that needs more room than the asset itself (other weights beside it) is small.
    written = extract(source, files, content, max_bytes=2 * asset.bytes + (1 << 20))
    if asset.kind == "folder":
        return content
    if asset.kind == "file":
        return written[0]
    weights = work / "weights.npz"
    try:
        weight_files.write_npz(weights, _read_arrays(asset, source, written[0]))
    except ValueError as error:
        raise SourceError(str(error)) from error
    return weights


def _read_arrays(asset: Asset, source: Source, path: Path) -> weight_files.Weights:
    if path.suffix == ".onnx":
        layers = dict.fromkeys(name.rpartition("/")[0] for name in asset.arrays)
        found = weight_files.read_onnx(path, layers, source.initialisers)
    else:
        found = weight_files.read_h5(path)
    return weight_files.check_arrays(found, asset.arrays)


def _not_found(asset: Asset, reasons: list[str]) -> str:
    tried = "\n".join(f"  - {reason}" for reason in reasons)
    ways = "\n".join(f"  - {source.by_hand}" for source in asset.sources)
    if len(reasons) == 1:
        first = f"its only source did not deliver it: {reasons[0]}."
    else:
        first = f"could not be fetched. Tried:\n{tried}"
    return (
        f"{asset.name} is not in {assets_dir()} and {first}\n"
        f"To put it there by hand, get one of these on a machine that can reach it\n{ways}\n"
        f"and copy it under its own name into {manual_dir() / asset.name}, then run again."
    )
