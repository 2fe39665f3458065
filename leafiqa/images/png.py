"""What Pillow does not tell of a PNG, and what it refuses although the pixels are good."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from leafiqa.images.colour_codes import check_colour_codes

# Pillow refuses texts and profiles that unpack to more than this; they have nothing to do with the pixels.
_PILLOW_MOST = 1 << 20
# A profile larger than this is no profile.
_MOST_PROFILE = 1 << 26
# All texts together; Pillow's own limit is 64 times this, and no picture needs more to be decoded.
_MOST_TEXTS = 1 << 20


@dataclass(frozen=True)
class PngParts:
    """A PNG as Pillow can read it.

    Attributes:
        stream: the file, without texts and profiles that are too large for Pillow.
        profile: the ICC profile that was taken out, None if none was.
    """

    stream: IO[bytes]
    profile: bytes | None = None


def read_png(stream: IO[bytes]) -> PngParts:
    """Check the colours that a PNG declares, and take out what Pillow would refuse the file for.

    Args:
        stream: the whole file; its position is left at its beginning.

    Raises:
        ImageError: wide-gamut or high-dynamic-range colours, which would be shown wrong.
    """
    left_out: list[tuple[int, int]] = []
    profile: bytes | None = None
    texts = 0
    for kind, start, length in _chunks(stream):
        if kind == b"cICP" and length == 4:
            primaries, transfer, _, _ = stream.read(4)
            check_colour_codes(primaries, transfer)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            texts += length if length > _PILLOW_MOST else _unpacked_length(stream.read(length))
            if texts > _MOST_TEXTS:
                left_out.append((start, length + 12))
        elif kind == b"iCCP":
            packed = stream.read(length).partition(b"\0")[2][1:]
            found = _unpack(packed, _MOST_PROFILE)
            if found is not None and len(found) > _PILLOW_MOST:
                profile = found
                left_out.append((start, length + 12))
    stream.seek(0)
    if not left_out:
        return PngParts(stream)
    kept = io.BytesIO()
    for start, length in left_out:
        kept.write(stream.read(start - stream.tell()))
        stream.seek(length, 1)
    kept.write(stream.read())
    kept.seek(0)
    return PngParts(kept, profile)


def _chunks(stream: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, place and length of all chunks but the pixels; the stream stands at the chunk's content."""
    place = 8
    while True:
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        if kind not in (b"IDAT", b"fdAT"):
            yield kind, place, length
        place += length + 12


def _unpacked_length(content: bytes) -> int:
    """Return how long a text is once it is unpacked, or a little more than Pillow's limit for a longer one."""
    start = content.find(b"\x78")  # where a zlib stream may begin, after the keyword and flags
    while 0 <= start < 200:
        unpacked = _unpack(content[start:], _PILLOW_MOST)
        if unpacked is not None:
            return max(len(content), len(unpacked))
        start = content.find(b"\x78", start + 1)
    return len(content)


def _unpack(packed: bytes, most: int) -> bytes | None:
    """Return what a zlib stream unpacks to, at most one byte more than `most`; None if it is none."""
    try:
        return zlib.decompressobj().decompress(packed, most + 1)
    except zlib.error:
        return None
