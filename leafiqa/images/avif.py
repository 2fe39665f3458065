"""What Pillow does not tell of an AVIF: colours that are declared by numbers (`colr` box of type `nclx`).

An AVIF is a tree of boxes (ISO/IEC 14496-12). The primary item's properties are those that `ipma` associates with it;
other items, such as the alternate picture of a gain map, may have other colours.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

from leafiqa.images.colour_codes import check_colour_codes

# The boxes before the pixels take a few hundred bytes; more than this is no header.
_MOST = 1 << 22


def check_avif_colours(stream: IO[bytes]) -> None:
    """Refuse an AVIF whose primary picture says that its colours are not sRGB. The stream is left at its beginning.

    Raises:
        ImageError: wide-gamut or high-dynamic-range colours, which would be shown wrong.
    """
    stream.seek(0)
    data = stream.read(_MOST)
    stream.seek(0)
    try:
        declared = list(_nclx(data))
    except (struct.error, IndexError):
        return  # damaged: decoding says so
    for primaries, transfer in declared:
        check_colour_codes(primaries, transfer)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end of the content of each box in a part of the file."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            head = 16
        size = end - start if size == 0 else size
        if size < head:
            return
        yield kind, start + head, min(start + size, end)
        start += size


def _inside(data: bytes, kind: bytes, start: int, end: int) -> tuple[int, int] | None:
    return next(((first, last) for name, first, last in _boxes(data, start, end) if name == kind), None)


def _nclx(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield primaries and transfer function of each `nclx` of the primary picture, or of a sequence's tracks."""
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            start += 4  # version and flags
            properties = _inside(data, b"iprp", start, end)
            container = properties and _inside(data, b"ipco", *properties)
            if not properties or not container:
                continue
            wanted = _primary_properties(data, start, end, *properties)
            for number, (name, first, last) in enumerate(_boxes(data, *container), 1):
                if name == b"colr" and (wanted is None or number in wanted):
                    yield from _colour(data, first, last)
        elif kind == b"moov":
            yield from _of_tracks(data, start, end)


def _of_tracks(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    for name, first, last in _boxes(data, start, end):
        if name in (b"trak", b"mdia", b"minf", b"stbl"):
            yield from _of_tracks(data, first, last)
        elif name == b"stsd":
            yield from _of_tracks(data, first + 8, last)
        elif name == b"av01":
            yield from _of_tracks(data, first + 78, last)
        elif name == b"colr":
            yield from _colour(data, first, last)


def _colour(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    if data[start : start + 4] == b"nclx" and end - start >= 8:
        yield struct.unpack_from(">HH", data, start + 4)


def _primary_properties(data: bytes, start: int, end: int, first: int, last: int) -> set[int] | None:
    """Return the numbers, from 1, of the properties of the primary item; None where the file does not tell."""
    primary, associations = _inside(data, b"pitm", start, end), _inside(data, b"ipma", first, last)
    if not primary or not associations:
        return None
    item = struct.unpack_from(">I" if data[primary[0]] else ">H", data, primary[0] + 4)[0]
    at = associations[0]
    version, wide = data[at], data[at + 3] & 1
    (count,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(count):
        (who,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        many = data[at]
        at += 1
        numbers = struct.unpack_from(f">{many}H" if wide else f">{many}B", data, at)
        at += many * (2 if wide else 1)
        if who == item:
            return {number & (0x7FFF if wide else 0x7F) for number in numbers}
    return None
