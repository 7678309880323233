"""How inputs are changed. All of it is seeded, and keeps the checksums and lengths right that would hide the rest."""

from __future__ import annotations

import json
import random
import re
import struct
import zlib
from collections.abc import Callable

__all__ = ["mutate_bytes", "mutate_json", "mutate_png", "mutate_text", "one_of_files", "with_words"]

Mutator = Callable[[bytes, random.Random], bytes]

_NUMBERS = (
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    16,
    64,
    127,
    128,
    255,
    256,
    4095,
    32767,
    32768,
    65535,
    65536,
    1 << 20,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 2,
    (1 << 32) - 1,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
_DOUBLES = (0.0, -0.0, 1.0, -1.0, 1e-320, 1e-160, 1e154, 1e300, 1.7e308, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    "",
    "a",
    "\x00",
    "é",
    "..",
    "../../x",
    "/",
    "//",
    "[",
    "{",
    '"',
    "'",
    "&a",
    "*a",
    "!!python/object:x",
    "<<",
    "~",
    "true",
    "null",
    "NaN",
    "Infinity",
    "-1",
    "1e999",
    "0x7fffffff",
    "2001-13-45",
    "1:1:1",
    "rgb8",
    "nv12",
    "equidistant",
)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four changes of bytes, numbers or blocks."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _change(out, rng)
    return bytes(out)


def _change(out: bytearray, rng: random.Random) -> None:
    way = rng.randrange(9)
    at = rng.randrange(len(out) + 1)
    if way == 0 and out:
        out[at % len(out)] ^= 1 << rng.randrange(8)
    elif way == 1 and out:
        out[at % len(out)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif way in (2, 3) and len(out) >= 8:  # a number, mostly where messages have theirs: at multiples of 4
        size = rng.choice((1, 2, 4, 4, 4, 8))
        value = rng.choice((*_NUMBERS, len(out), max(0, len(out) - at), rng.randrange(64)))
        place = at // 4 * 4 if rng.random() < 0.8 else at
        order = rng.choice(("little", "little", "big"))
        out[place : place + size] = (value & (1 << 8 * size) - 1).to_bytes(size, order)
    elif way == 4 and len(out) >= 12:
        place = 4 + (at // 8 * 8 if rng.random() < 0.8 else at)
        out[place : place + 8] = struct.pack("<d", rng.choice(_DOUBLES))
    elif way == 5:
        del out[at : at + rng.choice((1, 1, 2, 4, 8, 64, len(out)))]
    elif way == 6:
        out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 32)))
    elif way == 7 and out:
        start = rng.randrange(len(out))
        out[at:at] = out[start : start + rng.choice((1, 4, 8, 32, 128))] * rng.choice((1, 1, 2, 16))
    elif way == 8:
        out[at:at] = rng.choice(_TEXTS).encode()


_WORDS = re.compile(rb"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?|[A-Za-z_]\w*|\S")


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Words, numbers and lines of a text file exchanged, repeated or left out; now and then bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        words = list(_WORDS.finditer(data))
        if not words:
            return mutate_bytes(data, rng)
        word, other = rng.choice(words), rng.choice(words)
        way = rng.randrange(6)
        if way == 0:
            new = other[0]
        elif way == 1:
            new = str(rng.choice((*_NUMBERS, *_DOUBLES, -1, rng.randrange(100)))).encode()
        elif way == 2:
            new = rng.choice(_TEXTS).encode()
        elif way == 3:
            new = b""
        elif way == 4:
            new = word[0] * rng.choice((2, 8, 100))
        else:
            lines = data.splitlines(keepends=True)
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
            if rng.random() < 0.5:
                del lines[rng.randrange(len(lines))]
            data = b"".join(lines)
            continue
        data = data[: word.start()] + new + data[word.end() :]
    return data


def with_words(*words: str) -> Mutator:
    """`mutate_text` that also puts in words which mean something to the parser."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            at = rng.randrange(len(data) + 1)
            data = data[:at] + rng.choice(words).encode() + data[at:]
        return mutate_text(data, rng)

    return mutate


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """A JSON document with entries replaced by others of its kind or another, renamed, left out or nested."""
    if rng.random() < 0.2:
        return mutate_text(data, rng)
    try:
        tree = json.loads(data)
        for _ in range(rng.choice((1, 1, 2, 3))):
            tree = _changed(tree, rng)
        return json.dumps(tree).encode()
    except (ValueError, RecursionError):
        return mutate_text(data, rng)


def _changed(node: object, rng: random.Random) -> object:
    """The tree with one place changed; each level is entered more often than it is replaced."""
    if isinstance(node, (dict, list)) and node and rng.random() < 0.85:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        way = rng.random()
        if way < 0.08:
            del node[key]
        elif way < 0.12 and isinstance(node, dict):
            node[rng.choice(_TEXTS)] = node.pop(key)
        elif way < 0.16 and isinstance(node, list):
            node.extend(node[key : key + 1] * rng.choice((1, 2, 100)))
        else:
            node[key] = _changed(node[key], rng)
        return node
    way = rng.randrange(8)
    if way == 0:
        return rng.choice((*_NUMBERS, -1, -(1 << 63), 10**30))
    if way == 1:
        return rng.choice(_DOUBLES)
    if way == 2:
        return rng.choice(_TEXTS)
    if way == 3:
        return rng.choice((None, True, False, [], {}, [[]], {"a": 1}))
    if way == 4:
        return [node]
    if way == 5 and isinstance(node, (int, float)):
        return rng.choice((node + 1, -node, node * 2, str(node), float(node) if abs(node) < 1e300 else 0))
    if way == 6 and isinstance(node, str):
        return node + rng.choice(_TEXTS)
    return rng.randrange(-5, 300)


def mutate_png(data: bytes, rng: random.Random) -> bytes:
    """A PNG with a chunk changed, doubled, moved or left out, its checksums mended three times in four."""
    if rng.random() < 0.2 or not data.startswith(b"\x89PNG"):
        return mutate_bytes(data, rng)
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return mutate_bytes(data, rng)
    place = rng.randrange(len(chunks))
    kind, content = chunks[place]
    way = rng.randrange(6)
    if way <= 2:
        if kind == b"IDAT" and rng.random() < 0.5:
            try:
                content = zlib.compress(mutate_bytes(zlib.decompress(content), rng))
            except zlib.error:
                content = mutate_bytes(content, rng)
        else:
            content = mutate_bytes(content, rng)
        chunks[place] = kind, content
    elif way == 3:
        chunks.insert(rng.randrange(len(chunks)), chunks[place])
    elif way == 4:
        del chunks[place]
    else:
        names = (b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"zTXt", b"eXIf", b"gAMA", b"sBIT", b"bKGD")
        chunks.insert(rng.randrange(len(chunks) + 1), (rng.choice(names), rng.randbytes(rng.choice((0, 1, 4, 8, 26)))))
    out = bytearray(data[:8])
    for kind, content in chunks:
        out += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return bytes(out) if rng.random() < 0.75 else mutate_bytes(bytes(out), rng)


def one_of_files(mutators: list[Mutator]) -> Mutator:
    """For inputs whose first byte says which file of a folder the rest is: that file's own way of changing."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        if not data:
            return bytes([rng.randrange(len(mutators))])
        which = data[0] % len(mutators)
        return data[:1] + mutators[which](data[1:], rng)

    return mutate
