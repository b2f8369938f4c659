"""Damage for files: bytes, numbers in headers, and values of JSON."""

from __future__ import annotations

import json
import re
import struct
from random import Random
from typing import Any

#: What damaged or hostile headers claim.
_INTEGERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x39393939, 1 << 28)
_LONGS = (0, 1 << 31, 1 << 32, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
_NUMBERS = (b"-1", b"0", b"1", b"65535", b"99999999999", b"9" * 40, b"1e308", b"1e999", b"NaN", b"-0.0", b"[]", b"null")
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 2**31, 2**63, 10**30, 1.5, 1e308, float("inf"), float("nan")),
    *("", "x", "0", "\x00", "../../x", "nano", "é" * 40, "9" * 5000),
    *([], {}, [[]], [1, 2], [None] * 50, {"a": {}}),
)  # fmt: skip
#: Most formats keep what they claim of themselves at the beginning.
_HEAD = 1024


def damage_bytes(content: bytes, others: list[bytes], rng: Random) -> bytes:
    """The content with one to four kinds of damage, most of it near the beginning."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if not data:
            break
        rng.choice(_BYTE_DAMAGE)(data, others, rng)
    return bytes(data)


def damage_json(value: Any, rng: Random) -> Any:
    """The value with one to three of its parts replaced, left out, renamed or repeated."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _replace_part(value, rng)
    return value


def damage_values(content: bytes, others: list[bytes], rng: Random) -> bytes:
    """A JSON document with damaged values."""
    return json.dumps(damage_json(json.loads(content), rng)).encode()


def damage_json_bytes(content: bytes, others: list[bytes], rng: Random) -> bytes:
    """A JSON document with damaged values, or damaged as bytes."""
    if rng.random() < 0.25:
        return damage_bytes(content, others, rng)
    return json.dumps(damage_json(json.loads(content), rng)).encode()


def damage_safetensors(content: bytes, others: list[bytes], rng: Random) -> bytes:
    """A safetensors file with damaged values in its header, the length mended, or damaged as bytes."""
    if rng.random() < 0.3:
        return damage_bytes(content, others, rng)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.dumps(damage_json(json.loads(content[8 : 8 + length]), rng)).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _replace_part(value: Any, rng: Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        kind = rng.random()
        if kind < 0.75:
            return {**value, key: _replace_part(value[key], rng)}
        if kind < 0.85:
            return {name: part for name, part in value.items() if name != key}
        return {**value, str(rng.choice(_VALUES)): value[key]}
    if isinstance(value, list) and value and rng.random() < 0.7:
        index = rng.randrange(len(value))
        return [*value[:index], _replace_part(value[index], rng), *value[index + 1 :]]
    if isinstance(value, str) and rng.random() < 0.3:
        try:  # JSON within JSON, as in metadata
            return json.dumps(_replace_part(json.loads(value), rng))
        except ValueError:
            pass
    return rng.choice(_VALUES)


def _place(data: bytearray, rng: Random) -> int:
    end = min(len(data), _HEAD) if rng.random() < 0.7 else len(data)
    return rng.randrange(end)


def _flip(data: bytearray, others: list[bytes], rng: Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        data[_place(data, rng)] = rng.randrange(256)


def _integer(data: bytearray, others: list[bytes], rng: Random) -> None:
    place = _place(data, rng)
    code, value = rng.choice((("<I", rng.choice(_INTEGERS)), (">I", rng.choice(_INTEGERS)), ("<Q", rng.choice(_LONGS))))
    number = struct.pack(code, value)
    data[place : place + len(number)] = number


def _delete(data: bytearray, others: list[bytes], rng: Random) -> None:
    place = _place(data, rng)
    del data[place : place + rng.choice((1, 2, 4, 16, 256))]


def _repeat(data: bytearray, others: list[bytes], rng: Random) -> None:
    place, length = _place(data, rng), rng.choice((1, 4, 16, 256))
    data[place:place] = data[place : place + length] * rng.choice((1, 2, 10))


def _insert(data: bytearray, others: list[bytes], rng: Random) -> None:
    place = _place(data, rng)
    data[place:place] = rng.choice((b"\0" * 8, b"9" * 20, b"\xff" * 8, rng.randbytes(rng.choice((1, 8, 64)))))


def _cut(data: bytearray, others: list[bytes], rng: Random) -> None:
    del data[_place(data, rng) :]


def _number(data: bytearray, others: list[bytes], rng: Random) -> None:
    """A number that is written in digits."""
    found = list(re.finditer(rb"\d+", bytes(data[:_HEAD])))
    if found:
        match = rng.choice(found)
        data[match.start() : match.end()] = rng.choice(_NUMBERS)


def _splice(data: bytearray, others: list[bytes], rng: Random) -> None:
    other = rng.choice(others)
    data[_place(data, rng) :] = other[rng.randrange(len(other)) :] if other else b""


_BYTE_DAMAGE = (_flip, _flip, _integer, _integer, _delete, _repeat, _insert, _cut, _number, _splice)
