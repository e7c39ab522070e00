"""What a stranger may do to a file: bytes turned, cut, doubled and spliced; pieces made strange.

Every change is drawn from one generator, so that a number names a case for ever.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Bytes = Callable[[np.random.Generator, bytes], bytes]

# Numbers that sizes and counts are often wrong by, in both orders of bytes.
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**29, -(10**29), 0.5, -0.0, 1e-300, 1e308, -1e308,
    "", "x", "0", "nan", "\x00", "\x1b[2J", "\u202e", "\ud800", "</script><script>", "{{7*7}}",
    "=HYPERLINK(1)", ": - !!python/object", "../../etc/passwd", "/etc/passwd", "a\nb", "é" * 300,
    [], [1], ["x"], [[]], [None], {}, {"value": "x"}, {"a": [None]},
    {"value": 1, "low": [], "high": {}},
)  # fmt: skip
NAMES = (
    "plain", "a b", "</script><script>alert(1)</script>", "<!--<script>", "{{7*7}}",
    "{% raw %}", "${x}",
    ": - !!python/object/apply:os.system", "=HYPERLINK(1)", "-x", "+1", "@a", "'=1",
    "'", "\"'><svg onload=1>",
    "$\\frac", "[red]x[/]", "`c`|d", "a\nb", "a\rb", "\x1b]0;t\x07", "\u202egnp.exe",
    "\u200b", "日本", "🙂",
    "é" * 120, "..", "~", "*", "%s", "CON", "a\\b",
)  # fmt: skip


def change_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    """One to four of the changes below."""
    for _ in range(rng.integers(1, 5)):
        change = _CHANGES[rng.integers(len(_CHANGES))]
        content = change(rng, content) if content else bytes(rng.bytes(8))
    return content


def _flip(rng: np.random.Generator, content: bytes) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(len(content), size=rng.integers(1, 9)):
        changed[place] ^= 1 << rng.integers(8)
    return bytes(changed)


def _set_number(rng: np.random.Generator, content: bytes) -> bytes:
    number = _EDGES[rng.integers(len(_EDGES))]
    form = ("<B", ">H", "<H", ">I", "<I")[rng.integers(5)]
    packed = struct.pack(form, number & (256 ** struct.calcsize(form) - 1))
    place = int(rng.integers(len(content)))
    return content[:place] + packed + content[place + len(packed) :]


def _cut(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: rng.integers(len(content))]


def _cut_out(rng: np.random.Generator, content: bytes) -> bytes:
    begin, end = sorted(rng.integers(len(content) + 1, size=2).tolist())
    return content[:begin] + content[end:]


def _double(rng: np.random.Generator, content: bytes) -> bytes:
    begin, end = sorted(rng.integers(len(content) + 1, size=2).tolist())
    return content[:end] + content[begin:end] + content[end:]


def _splice(rng: np.random.Generator, content: bytes) -> bytes:
    begin, end = sorted(rng.integers(len(content) + 1, size=2).tolist())
    place = int(rng.integers(len(content)))
    return content[:place] + content[begin:end] + content[place + end - begin :]


def _grow(rng: np.random.Generator, content: bytes) -> bytes:
    place = int(rng.integers(len(content) + 1))
    piece = rng.bytes(int(rng.integers(1, 64)))
    return content[:place] + piece * int(rng.integers(1, 200)) + content[place:]


_CHANGES: tuple[Bytes, ...] = (_flip, _flip, _set_number, _cut, _cut_out, _double, _splice, _grow)


def change_json(rng: np.random.Generator, content: bytes) -> bytes:
    """A piece made strange, doubled, renamed or taken away; the text stays JSON."""
    value = json.loads(content)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(value))
        if not places:
            break
        holder, key = places[rng.integers(len(places))]
        match rng.integers(6):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[str(_pick(rng, NAMES))] = holder.pop(key)
            case 2 if isinstance(holder, list):
                holder.append(holder[key])
            case 3:
                holder[key] = str(_pick(rng, NAMES))
            case _:
                holder[key] = _pick(rng, STRANGE)
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Any:
    """Every holder and key in a value of JSON."""
    left = [value]
    while left:
        holder = left.pop()
        keys = holder.keys() if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            yield holder, key
            if isinstance(holder[key], dict | list):
                left.append(holder[key])


def change_table(rng: np.random.Generator, content: bytes) -> bytes:
    """Cells of a table of comma-separated values made strange, rows and columns lost."""
    rows = [line.split(",") for line in content.decode("utf-8").splitlines()]
    for _ in range(rng.integers(1, 4)):
        row = rows[rng.integers(len(rows))]
        place = int(rng.integers(len(row)))
        match rng.integers(5):
            case 0:
                del row[place]
            case 1:
                row.insert(place, row[place])
            case 2:
                rows.insert(int(rng.integers(len(rows))), list(row))
            case _:
                strange = _pick(rng, (*NAMES, "", "nan", "inf", "1e999", '"', "1_0", "\x00"))
                row[place] = str(strange)
        rows = [row for row in rows if row] or [["a"]]
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


def change_archive(inner: Bytes) -> Bytes:
    """A member of a zip archive changed and packed again, so that its checksum is right."""

    def change(rng: np.random.Generator, content: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(each.filename, archive.read(each)) for each in archive.infolist()]
        place = int(rng.integers(len(members)))
        name, inside = members[place]
        match rng.integers(8):
            case 0:
                del members[place]
            case 1:
                members.append((name, inside))
            case 2:
                members[place] = (
                    ("../" * 3 + name, "/" + name, str(_pick(rng, NAMES)))[rng.integers(3)],
                    inside,
                )
            case _:
                members[place] = (name, inner(rng, inside))
        return pack(members, deflated=bool(rng.integers(2)))

    return change


def change_array(rng: np.random.Generator, content: bytes) -> bytes:
    """The header of an `.npy` claims something else, or its numbers do."""
    if rng.integers(3) == 0 or content[:6] != b"\x93NUMPY":
        return change_bytes(rng, content)
    length = int.from_bytes(content[8:10], "little")
    header, body = content[10 : 10 + length].decode("latin-1").rstrip(), content[10 + length :]
    shape = (
        "()",
        "(1,)",
        "(0,)",
        "(-1,)",
        "(1000000000000,)",
        "(0, 99999999999)",
        "(True,)",
        "(2, 2)",
        "3",
    )
    descr = ("<f8", "<f2", "|O", "|V8", "<U4", "|S4", "<i8", "|b1", "<c8", "<M8[s]", ">f4", "<f16")
    before = header.partition("'shape': ")[0]
    match rng.integers(4):
        case 0:
            header = f"{before}'shape': {_pick(rng, shape)}, }}"
        case 1:
            begin = header.index("'descr': ") + 9
            header = f"{header[:begin]}'{_pick(rng, descr)}'{header[header.index(',') :]}"
        case 2:
            header = header.replace("False", "True")
        case _:
            body = _strange_numbers(rng, body)
    text = header.encode("latin-1") + b"\n"
    return content[:8] + len(text).to_bytes(2, "little") + text + body


def _strange_numbers(rng: np.random.Generator, body: bytes) -> bytes:
    fill = (b"\x00", b"\xff", b"\x7f")[rng.integers(3)]
    begin, end = sorted(rng.integers(len(body) + 1, size=2).tolist())
    return body[:begin] + fill * (end - begin) + body[end:]


def pack(members: Sequence[tuple[str, bytes]], *, deflated: bool = False) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", kind) as archive:
        warnings.simplefilter("ignore")  # a name that is there twice is meant so
        for name, inside in members:
            member = zipfile.ZipInfo(name or "x")
            member.compress_type = kind
            archive.writestr(member, inside)
    return buffer.getvalue()


def one_of(*changes: Bytes) -> Bytes:
    """One of several kinds of changes."""
    return lambda rng, content: changes[rng.integers(len(changes))](rng, content)


def _pick(rng: np.random.Generator, choices: Sequence[Any]) -> Any:
    # A copy: what is put into a case must not change the next one.
    return copy.deepcopy(choices[int(rng.integers(len(choices)))])
