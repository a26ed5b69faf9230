"""The rows of a damaged SQLite file, read page by page where its trees no longer lead to them.

Only what the file format calls index b-tree pages is read: a table WITHOUT ROWID is kept in them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["rows_in_pages"]

_MAGIC = b"SQLite format 3\0"
_INTERIOR, _LEAF = 2, 10
_INTEGER_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_MOST = 100_000


def rows_in_pages(data: bytes) -> Iterator[tuple[object, ...]]:
    """The values of every row on every index b-tree page; what cannot be read is passed over.

    A page that was given up may still hold rows, so some of these may be older than the file.
    """
    size = int.from_bytes(data[16:18]) if data.startswith(_MAGIC) else 4096
    size = 65_536 if size == 1 else size
    if size < 512 or size & (size - 1):
        size = 4096
    for start in range(0, len(data), size):
        page = data[start : start + size]
        kind = page[0]
        if kind not in (_INTERIOR, _LEAF):
            continue
        first = 12 if kind == _INTERIOR else 8
        for at in range(first, min(first + 2 * int.from_bytes(page[3:5]), len(page)), 2):
            cell = int.from_bytes(page[at : at + 2]) + (4 if kind == _INTERIOR else 0)
            try:
                yield _values(_payload(data, page, cell, size))
            except (IndexError, ValueError, struct.error, UnicodeDecodeError):
                continue


def _payload(data: bytes, page: bytes, at: int, size: int) -> bytes:
    """The record of a cell, with what overflows the page."""
    length, at = _varint(page, at)
    if not 0 < length < _MOST:
        raise ValueError("no record is as long as this")
    # "Cell Payload Overflow Pages": how much of it stands on the page itself.
    most, least = (size - 12) * 64 // 255 - 23, (size - 12) * 32 // 255 - 23
    local = length
    if length > most:
        local = least + (length - least) % (size - 4)
        local = local if local <= most else least
    record = bytearray(page[at : at + local])
    following = int.from_bytes(page[at + local : at + local + 4]) if local < length else 0
    while len(record) < length:
        if not following:
            raise ValueError("the record is cut off")
        overflow = data[(following - 1) * size : following * size]
        following = int.from_bytes(overflow[:4])
        if len(overflow) < 5:
            raise ValueError("the record is cut off")
        record += overflow[4 : 4 + length - len(record)]
    return bytes(record)


def _values(record: bytes) -> tuple[object, ...]:
    end, at = _varint(record, 0)
    body = end
    values: list[object] = []
    while at < end:
        kind, at = _varint(record, at)
        value, body = _value(record, kind, body)
        values.append(value)
    return tuple(values)


def _value(record: bytes, kind: int, at: int) -> tuple[object, int]:
    if kind in (0, 8, 9):
        return {0: None, 8: 0, 9: 1}[kind], at
    length = _INTEGER_SIZES.get(kind, 8) if kind < 12 else (kind - 12) // 2
    field = record[at : at + length]
    if len(field) < length or kind in (10, 11):
        raise ValueError("the value is cut off")
    if kind == 7:
        return struct.unpack(">d", field)[0], at + length
    if kind < 12:
        return int.from_bytes(field, signed=True), at + length
    return (field if kind % 2 == 0 else field.decode()), at + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(9):
        byte = data[at + index]
        if index == 8:
            return (value << 8) | byte, at + 9
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("unreachable")
