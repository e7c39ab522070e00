"""Where the bytes of an asset come from: an address, a Python wheel or an npm tarball.

Package registries are only ever reached through the user's own client (pip, npm), so mirrors,
proxies and credentials that are configured there are honoured and no registry is named here.
"""

import contextlib
import errno
import gzip
import importlib.util
import logging
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from safelight import untrusted

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
CLIENT_SECONDS = 900.0
_CHUNK = 1 << 18


class SourceError(RuntimeError):
    """One source of an asset failed; the message is the reason, for the list of all sources."""


@dataclass(frozen=True)
class RemoteFile:
    """One file that a source delivers.

    Args:
        name: the file's own name, also the one it must bear when it is put there by hand.
        hash: "sha256:..." or "md5:..."; empty where none is published.
        size: bytes, 0 where unknown.
        address: where it can be downloaded; empty for files from a package registry.
    """

    name: str
    hash: str
    size: int
    address: str = ""


@dataclass(frozen=True)
class Source:
    """One way to get an asset.

    Args:
        kind: "url", "pypi" or "npm".
        files: what arrives.
        package: name in the registry ("pypi", "npm").
        version: exact version in the registry.
        unpack: "zip", "tar", "gzip" or "none".
        prefix: members of the archive below this name are taken, without it.
        members: names below the prefix that are taken; empty for all.
        initialisers: names of "kernel" and "bias" in an ONNX file, with {layer} to fill in.
        client: pip requirement (with hashes) that brings npm where the machine has none.
    """

    kind: str
    files: tuple[RemoteFile, ...]
    package: str = ""
    version: str = ""
    unpack: str = "none"
    prefix: str = ""
    members: tuple[str, ...] = ()
    initialisers: dict[str, str] = field(default_factory=dict)
    client: str = ""

    @property
    def label(self) -> str:
        """What to call this source in a message."""
        if self.kind == "pypi":
            return f"pip download {self.package}=={self.version}"
        if self.kind == "npm":
            return f"npm pack {self.package}@{self.version}"
        if len(self.files) == 1:
            return self.files[0].address
        folder = self.files[0].address.rpartition("/")[0]
        return f"{folder}/ ({len(self.files)} files)"

    @property
    def size(self) -> int:
        """Bytes to receive, 0 where unknown."""
        return sum(file.size for file in self.files)

    @property
    def needs_network(self) -> bool:
        """Whether getting it leaves this machine."""
        return not all(file.address.startswith("file:") for file in self.files)

    @property
    def by_hand(self) -> str:
        """One clause that tells how to get the files on another machine."""
        names = " and ".join(file.name for file in self.files)
        if self.kind == "pypi":
            return f"{names} (`pip download --no-deps {self.package}=={self.version}`)"
        if self.kind == "npm":
            return f"{names} (`{self.label}`)"
        return f"{names} (from {self.label})"


def obtain(source: Source, folder: Path, *, progress: Progress | None = None) -> None:
    """Get a source's files into a folder as they come; `check_file` compares their hashes.

    Args:
        source: what to get.
        folder: existing temporary folder, on the disk where the asset will be kept.
        progress: called with (step, bytes done, bytes in total or 0).

    Raises:
        SourceError: if its host, or the user's pip or npm, does not deliver.
    """
    if source.kind == "url":
        for file in source.files:
            _download(file, folder / file.name, progress=progress)
    elif source.kind == "pypi":
        _pip_download(source, folder, progress=progress)
    elif source.kind == "npm":
        _npm_pack(source, folder, progress=progress)
    else:
        raise ValueError(f"source kind {source.kind!r} is not one of 'url', 'pypi', 'npm'")


def check_file(file: RemoteFile, path: Path) -> Path:
    """Compare one arrived file with its row.

    Args:
        file: the row.
        path: the file on disk.

    Returns:
        The path.

    Raises:
        SourceError: if it is missing, of another size, or has another hash.
    """
    if not path.is_file():
        raise SourceError(f"{file.name} did not arrive")
    size = path.stat().st_size
    if file.size and size != file.size:
        raise SourceError(f"{file.name} has {size} bytes, expected {file.size}")
    if file.hash and not matches(path, file.hash):
        raise SourceError(f"{file.name} does not have the expected {file.hash}")
    return path


def matches(path: Path, known_hash: str) -> bool:
    """Tell whether a file has a hash.

    Args:
        path: the file.
        known_hash: "sha256:..." or "md5:...".

    Returns:
        True if it has.
    """
    algorithm, _, digest = known_hash.partition(":")
    return file_digest(path, algorithm) == digest


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Hash a file's bytes.

    Args:
        path: the file.
        algorithm: a name that hashlib knows.

    Returns:
        Hexadecimal digest.
    """
    import pooch

    return str(pooch.file_hash(str(path), alg=algorithm))


def list_digests(path: Path) -> dict[str, tuple[int, str]]:
    """Map each file below a path to its (size, SHA-256); hidden files are not ours.

    Args:
        path: a file or a folder.
    """
    if path.is_file():
        return {path.name: (path.stat().st_size, file_digest(path))}
    files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {p.relative_to(path).as_posix(): (p.stat().st_size, file_digest(p)) for p in files}


def compare_digests(
    listing: Mapping[str, tuple[int, str]], known: Mapping[str, tuple[int, str]]
) -> None:
    """Raise SourceError naming the first file that two listings do not share."""
    missing = [name for name in known if name not in listing]
    extra = [name for name in listing if name not in known]
    changed = [n for n in known if n in listing and listing[n] != known[n]]
    for names, what in ((missing, "missing"), (changed, "changed"), (extra, "not part of it")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise SourceError(f"{names[0]}{more} {'is' if not more else 'are'} {what}")


class _Meter:
    """Stands in for tqdm where pooch reports its chunks."""

    def __init__(self, name: str, progress: Progress | None) -> None:
        self.name, self.report, self.total, self.done = name, progress, 0, 0

    def update(self, amount: int) -> None:
        """Count the bytes of one chunk."""
        self.done = min(self.done + amount, self.total or self.done + amount)
        if self.report:
            self.report(self.name, self.done, self.total)

    def reset(self) -> None:
        """Start again at zero, as tqdm does."""
        self.done = 0

    def close(self) -> None:
        """Nothing to release."""


def _download(file: RemoteFile, path: Path, *, progress: Progress | None) -> None:
    if file.address.startswith("file:"):
        return _copy_local(file, path, progress=progress)
    import pooch
    import requests

    download = pooch.HTTPDownloader(
        progressbar=_Meter(file.name, progress),
        chunk_size=_CHUNK,
        timeout=(CONNECT_SECONDS, READ_SECONDS),
    )
    try:
        download(file.address, str(path), None)
    except requests.ConnectionError as error:
        host = urlsplit(file.address).hostname
        raise SourceError(f"{host} cannot be reached ({_root_cause(error)})") from error
    except requests.RequestException as error:
        raise SourceError(f"{error}") from error
    return None


def _root_cause(error: BaseException) -> str:
    # requests nests the one useful line (name not resolved, refused) three exceptions deep.
    reason = error.args[0] if error.args else error
    reason = getattr(reason, "reason", reason)
    return str(reason).rpartition(": ")[2].strip("'\"") or type(error).__name__


def _copy_local(file: RemoteFile, path: Path, *, progress: Progress | None) -> None:
    meter = _Meter(file.name, progress)
    origin = Path(url2pathname(urlsplit(file.address).path))
    try:
        source = origin.open("rb")
    except OSError as error:
        raise SourceError(f"{origin} cannot be read ({error.strerror})") from error
    with source, path.open("wb") as target:
        meter.total = origin.stat().st_size
        while chunk := source.read(_CHUNK):
            target.write(chunk)
            meter.update(len(chunk))


def _pip(*arguments: str) -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise SourceError(
            f"pip is not installed for {sys.executable}; `{sys.executable} -m ensurepip` adds it"
        )
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
    wheels = ["--no-deps", "--only-binary", ":all:", "--retries", "1"]
    command, *rest = arguments
    return [sys.executable, "-m", "pip", command, *quiet, *wheels, *rest]


def _pip_download(source: Source, folder: Path, *, progress: Progress | None) -> None:
    # The wheel is opened, never installed, so the Python it is meant for does not matter.
    requirement = f"{source.package}=={source.version}"
    options = ["--ignore-requires-python", "--dest", str(folder), requirement]
    command = _pip("download", *options)
    _run_client(command, folder, label=source.label, total=source.size, report=progress)


def _npm_pack(source: Source, folder: Path, *, progress: Progress | None) -> None:
    reasons = []
    for npm in _npm_clients(source, folder, progress=progress):
        command = [
            *npm,
            "pack",
            f"{source.package}@{source.version}",
            "--silent",
            "--ignore-scripts",
            "--fetch-retries=1",
            f"--cache={folder / 'npm-cache'}",
        ]
        try:
            _run_client(command, folder, label=source.label, total=source.size, report=progress)
            return
        except SourceError as error:
            reasons.append(str(error))
    raise SourceError("; ".join(reasons) or "npm is not on the PATH")


def _npm_clients(source: Source, folder: Path, *, progress: Progress | None) -> Iterator[list[str]]:
    """Yield the command of the machine's npm, then of one that pip brings."""
    if npm := shutil.which("npm"):
        yield [npm]
    if not source.client:
        return
    logger.info("no usable npm on the PATH: getting one through pip, for this download only")
    target = folder / "npm-client"
    requirements = folder / "npm-client.txt"
    requirements.write_text(source.client + "\n")
    install = _pip("install", "--require-hashes", "--target", str(target), "-r", str(requirements))
    _run_client(install, folder, label="pip install of npm", total=0, report=progress)
    scripts = sorted(target.rglob("npm-cli.js"))
    nodes = [p for p in sorted(target.rglob("node*")) if p.name in ("node", "node.exe")]
    nodes = [p for p in nodes if p.is_file()]
    if not scripts or not nodes:
        raise SourceError(f"{source.client.split()[0]} holds no npm")
    yield [str(nodes[0]), str(scripts[0])]


def _run_client(
    command: list[str], folder: Path, *, label: str, total: int, report: Progress | None
) -> None:
    """Run pip or npm with its temporary files in `folder`, under a time limit."""
    log = folder / "client.log"
    environment = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    deadline = time.monotonic() + CLIENT_SECONDS
    before = _folder_size(folder)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise SourceError(f"{label} took more than {CLIENT_SECONDS:.0f} s")
                if report:
                    done = max(_folder_size(folder) - before, 0)
                    report(label, min(done, total) if total else done, total)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0:
        raise SourceError(f"{label} failed: {_last_error(log)}")


def _folder_size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # the client may have moved it meanwhile
            total += path.stat().st_size
    return total


def _last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines
    return errors[-1][:300] if errors else "it gave no reason"


def extract(source: Source, files: list[Path], folder: Path, *, max_bytes: int) -> list[Path]:
    """Unpack what a source delivered, taking only regular files below its prefix.

    Args:
        source: says how the files are packed.
        files: the verified files of the source.
        folder: existing empty folder to unpack into.
        max_bytes: refuse to write more than this, whatever the archive claims.

    Returns:
        The files written.

    Raises:
        SourceError: if a member would land outside the folder, is a link, is broken, if all
            together are too large, or nothing that is wanted lies below the prefix.
    """
    written: list[Path] = []
    room = max_bytes
    try:
        for name, stream in _members(source, files):
            if source.members and name not in source.members:
                continue
            target = folder.joinpath(*_safe_parts(name))
            target.parent.mkdir(parents=True, exist_ok=True)
            room -= _write(stream, target, room)
            written.append(target)
    except gzip.BadGzipFile as error:
        raise SourceError(f"the archive is broken ({error})") from error
    except SourceError:
        raise
    except OSError as error:
        # Those of the disk have a number; an archive that points before its own beginning has this.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise SourceError(f"the archive is broken ({error})") from error
    except Exception as error:  # zipfile, tarfile and zlib raise almost anything
        raise SourceError(f"the archive is broken ({untrusted.one_line(error)})") from error
    if not written:
        raise SourceError(f"the archive holds nothing below {source.prefix!r}")
    return written


def _safe_parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise SourceError(f"the archive's member {name!r} points outside its folder")
    return path.parts


def _write(stream: IO[bytes], target: Path, room: int) -> int:
    size = 0
    with stream, target.open("wb") as output:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            if size > room:
                raise SourceError("the archive unpacks to more than the asset can hold")
            output.write(chunk)
    return size


def _members(source: Source, files: list[Path]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield (name without the prefix, open stream) of each file to keep."""
    for path in files:
        if source.unpack == "zip":
            yield from _zip_members(path, source.prefix)
        elif source.unpack == "tar":
            yield from _tar_members(path, source.prefix)
        elif source.unpack == "gzip":
            with gzip.open(path) as stream:
                yield path.name.removesuffix(".gz"), cast(IO[bytes], stream)
        else:
            with path.open("rb") as plain:
                yield path.name, plain


def _below(name: str, prefix: str) -> str:
    # A prefix that is a whole file name stands for that one file.
    return name.removeprefix(prefix) or PurePosixPath(name).name


def _zip_members(path: Path, prefix: str) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.startswith(prefix) or member.is_dir():
                continue
            if stat.S_ISLNK(member.external_attr >> 16):
                raise SourceError(f"the archive's member {member.filename!r} is a link")
            yield _below(member.filename, prefix), archive.open(member)


def _tar_members(path: Path, prefix: str) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path) as archive:
        for member in archive:
            if not member.name.startswith(prefix) or member.isdir():
                continue
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is None:
                raise SourceError(f"the archive's member {member.name!r} is not a regular file")
            yield _below(member.name, prefix), stream
