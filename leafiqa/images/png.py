"""What Pillow does not tell of a PNG: colours that are not sRGB although there is no ICC profile."""

from __future__ import annotations

import struct
from typing import IO

from leafiqa.errors import ImageError

# Code points of ITU-T H.273: primaries of BT.709, which are sRGB's, and transfer functions close to sRGB's.
_PRIMARIES = {1}
_TRANSFERS = {1, 6, 13}


def check_colour_chunk(stream: IO[bytes]) -> None:
    """Refuse a PNG whose `cICP` chunk says that its colours are not sRGB. The stream's position is left as found.

    Raises:
        ImageError: wide-gamut or high-dynamic-range colours, which would be shown wrong.
    """
    position = stream.tell()
    try:
        stream.seek(8)
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"cICP" and length == 4:
                primaries, transfer, _, _ = stream.read(4)
                if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
                    raise ImageError(
                        f"its colours are not sRGB (cICP primaries {primaries}, transfer function {transfer}: wide "
                        "gamut or HDR); convert it to sRGB first"
                    )
            if kind in (b"IDAT", b"IEND"):
                return
            stream.seek(length + 4, 1)
    finally:
        stream.seek(position)
