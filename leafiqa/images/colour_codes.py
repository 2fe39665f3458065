"""Colours that a file declares by numbers instead of an ICC profile: PNG's `cICP`, AVIF's `colr`/`nclx`."""

from __future__ import annotations

from leafiqa.errors import ImageError

# Code points of ITU-T H.273. Primaries: BT.709, which are sRGB's, and unspecified, which means sRGB.
_PRIMARIES = {1, 2}
# Transfer functions: those of BT.709, BT.601 and BT.2020 in SDR, sRGB's, and unspecified.
_TRANSFERS = {1, 2, 6, 13, 14, 15}


def check_colour_codes(primaries: int, transfer: int) -> None:
    """Refuse colours that would be shown wrong if taken for sRGB.

    Args:
        primaries: code point of the colour primaries.
        transfer: code point of the transfer function.

    Raises:
        ImageError: wide gamut or high dynamic range.
    """
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS:
        raise ImageError(
            f"its colours are not sRGB (colour primaries {primaries}, transfer function {transfer}: wide gamut or "
            "HDR); convert it to sRGB first"
        )
