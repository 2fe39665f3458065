"""Decode one image file to RGB pixels as a colour-managed viewer would show them, or say why not."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from leafiqa.errors import ImageError
from leafiqa.images.avif import check_avif_colours
from leafiqa.images.memory import keep_blocks
from leafiqa.images.png import read_png

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Formats that hold photographs and whose decoders run no other program (EPS would start Ghostscript).
# Pillow's JPEG plugin also opens MPO, the several-pictures JPEG of phones.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM")
# Above Pillow's own limit, which phones of 200 megapixels pass; four bytes a pixel while decoding.
MAX_PIXELS = 1 << 28
# Bytes of pixels that are copied out of Pillow's memory at a time: what they pass through is small enough to be kept.
_STRIP = 1 << 20

# From an image's height and width to the least height and width that it may be decoded at.
SizeRule = Callable[[int, int], tuple[int, int]]

_EIGHT_BIT_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_SIXTEEN_BIT_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}
_SRGB = ImageCms.createProfile("sRGB")
# What to do with pixels for each EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_registering = threading.Lock()
_counting = threading.Lock()
_refusing = 0
_lenient = False


@dataclass
class Decoded:
    """One decoded image.

    Attributes:
        pixels: `(H, W, 3)` RGB in sRGB, uint8, or float32 in [0, 1] where the file holds 16 bits.
        notes: what the reader should know, such as "animated: first of 12 frames".
        size: height and width of the whole image, where it was decoded at reduced scale; else None.
    """

    pixels: NDArray[np.uint8] | NDArray[np.float32]
    notes: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None


def decode(source: str | os.PathLike[str] | bytes | IO[bytes], draft: SizeRule | None = None) -> Decoded:
    """Read and decode an image.

    EXIF orientation is applied, an embedded ICC profile is converted to sRGB, transparency is laid over white,
    and of an animation the first frame is taken. A truncated, mislabelled or unsupported file is an error.

    Args:
        source: a path, the bytes of a file, or a binary file object (read from its current position).
        draft: tells for an image's height and width the least ones to decode it at: a JPEG is then decoded at a half,
            a quarter or an eighth of its size, which is several times as fast. None decodes whole images.

    Raises:
        ImageError: the file cannot be read or cannot be decoded faithfully; the message says why.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        stream: IO[bytes] = io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        stream = _open(Path(source))
    else:
        content = source.read()
        if not isinstance(content, (bytes, bytearray)):
            raise ImageError(f"a file object must be opened in binary mode; its read() gave {type(content).__name__}")
        stream = io.BytesIO(content)
    with _registering:
        Image.init()  # Pillow registers its plugins on first use, which is not safe in threads
        keep_blocks()
    with stream, refusing_truncated():
        return _decode_stream(stream, draft)


def _open(path: Path) -> IO[bytes]:
    """Open a regular file. Not read as a whole: most of what is no image shows in its first bytes."""
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a folder; pass its files, or use `leafiqa score -r {path}`")
        if path.exists() and not path.is_file():
            raise ImageError(f"{path} is not a regular file")
        return path.open("rb")
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # an embedded NUL
        raise ImageError(f"cannot read {str(path)!r}: {error}") from error


def _decode_stream(stream: IO[bytes], draft: SizeRule | None) -> Decoded:
    if not stream.seek(0, io.SEEK_END):
        raise ImageError("the file is empty")
    stream.seek(0)
    head = stream.read(32)
    stream.seek(0)
    profile: bytes | None = None
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            parts = read_png(stream)
            stream, profile = parts.stream, parts.profile
        elif head[4:8] == b"ftyp":  # whatever its brand: Pillow opens by the compatible brands, too
            check_avif_colours(stream)
        with _open_image(stream) as image:
            if profile is not None:
                image.info["icc_profile"] = profile
            size = _begin_draft(image, draft) if draft is not None else None
            decoded = from_pil(image)
            if size is not None:
                # As upright as the pixels are: both are wide, or both high.
                turned = (decoded.pixels.shape[0] > decoded.pixels.shape[1]) != (size[0] > size[1])
                decoded.size = size[::-1] if turned else size
            return decoded
    except UnidentifiedImageError as error:
        raise ImageError(_why_unidentified(stream)) from error
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("not enough memory to decode it") from error
    except Exception as error:
        raise _damaged(error) from error


def _begin_draft(image: Image.Image, draft: SizeRule) -> tuple[int, int] | None:
    """Make a JPEG decode at reduced scale; return its whole height and width, None where it decodes as it is."""
    width, height = image.size
    if image.format not in ("JPEG", "MPO") or width * height > MAX_PIXELS or min(width, height) < 1:
        return None
    least_height, least_width = draft(height, width)
    image.draft(None, (least_width, least_height))
    return (height, width) if image.size != (width, height) else None


def _open_image(stream: IO[bytes]) -> Image.Image:
    """Open an image as `Image.open` does, without its limit on pixels, which is a global of Pillow's.

    Raises:
        UnidentifiedImageError: no decoder knows the file.
    """
    prefix = stream.read(16)
    for name in FORMATS:
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        try:
            accepted = accept(prefix) if accept else True
            if not accepted or isinstance(accepted, str):
                continue
            stream.seek(0)
            return factory(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # as Pillow does: another decoder may know it
    raise UnidentifiedImageError("no decoder knows the file")


def _refuse_camera_raw(image: Image.Image) -> None:
    """Refuse a TIFF whose first picture is a preview: what it shows is not what the camera recorded.

    Raises:
        ImageError: the file is a camera's raw data.
    """
    tags = getattr(image, "tag_v2", {})
    reduced = _tag(image, 254)
    if (
        50706 in tags
        or _begins_as_canon_raw(image)
        or _tag(image, 262) in (32803, 34892)
        or (reduced is not None and reduced & 1)
        or _tag(image, 255) == 2  # what older files say for a reduced picture
    ):
        raise ImageError(
            "a camera raw file (DNG, CR2, NEF, ARW or the like): the picture in it is a preview; develop it to JPEG, "
            "PNG or TIFF first"
        )


def _begins_as_canon_raw(image: Image.Image) -> bool:
    stream = getattr(image, "fp", None)
    if stream is None:  # pixels that were read before
        return False
    place = stream.tell()
    stream.seek(8)
    mark = stream.read(2)
    stream.seek(place)
    return bool(mark == b"CR")


def _damaged(error: Exception) -> ImageError:
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others on damaged files.
    return ImageError(f"damaged or truncated: {str(error) or type(error).__name__}")


def open_pil(image: Image.Image) -> Decoded:
    """Convert a caller's PIL image, at the frame that it stands at.

    Raises:
        ImageError: as for `from_pil`, or the image's file turns out to be damaged.
    """
    try:
        with refusing_truncated():
            return from_pil(image)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise _damaged(error) from error


@contextlib.contextmanager
def refusing_truncated() -> Iterator[None]:
    """Make Pillow report truncated files while decoding, also for a program that told it to fill them with grey.

    The setting is a global of Pillow's. It is put back when the last of several threads is done, and not touched at
    all where it is at its default.
    """
    global _refusing, _lenient
    with _counting:
        if not _refusing:
            _lenient = ImageFile.LOAD_TRUNCATED_IMAGES
        _refusing += 1
        if _lenient:
            ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _counting:
            _refusing -= 1
            if not _refusing and _lenient:
                ImageFile.LOAD_TRUNCATED_IMAGES = True


def from_pil(image: Image.Image) -> Decoded:
    """Convert a PIL image, of any mode, to sRGB pixels.

    Raises:
        ImageError: the image is too large, of a mode without a known range, or cannot be colour-managed.
    """
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"the image has no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{width}x{height} is {width * height / 1e6:.0f} megapixels, above the limit of "
            f"{MAX_PIXELS // 10**6}; downscale it first"
        )
    if image.format == "TIFF":
        _refuse_camera_raw(image)
    notes: list[str] = []
    # MPO and some TIFFs hold further pictures (a depth map, a thumbnail) which are no animation.
    frames = getattr(image, "n_frames", 1)
    which = "first" if frames < 2 or image.tell() == 0 else f"number {image.tell() + 1}"
    if frames > 1 and image.format in {"GIF", "PNG", "WEBP", "AVIF"}:
        notes.append(f"animated: {which} of {frames} frames")
    elif frames > 1 and image.format == "TIFF":
        notes.append(f"{frames} pages: {which} page")
    _scale_transparent_colour(image)
    image.load()
    profile = image.info.get("icc_profile")
    white = _white_of(image)
    inverted = image.format == "TIFF" and _tag(image, 262) == 0
    image = _upright(image, notes)
    if white is not None:
        return Decoded(_high_depth(image, profile, white, inverted), notes)
    if image.mode not in _EIGHT_BIT_MODES:
        raise ImageError(
            f"pixel mode {image.mode!r} has no defined white and black; convert the image to 8 or 16 bits a channel"
        )
    return Decoded(_as_array(_to_srgb(image, profile)), notes)


def _as_array(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of an RGB image; a large one strip by strip, so that it lies in memory once less."""
    width, height = image.size
    rows = max(1, _STRIP // (3 * width))
    if rows >= height:
        return np.array(image)
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Apply the EXIF orientation. Only that tag is looked at: odd values in others say nothing of the pixels."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF, of which Pillow raises whatever it meets
        notes.append("its EXIF data is damaged: taken as upright")
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _tag(image: Image.Image, number: int) -> int | None:
    """Return a TIFF tag that holds one number."""
    value = getattr(image, "tag_v2", {}).get(number)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None


def _white_of(image: Image.Image) -> int | None:
    """Return the value of white of a grey image of more than 8 bits, None for an image of 8 bits.

    Raises:
        ImageError: the image says of itself that it is neither.
    """
    if image.mode == "I" and image.format == "PPM":
        return 65535  # Pillow scales every larger maximum to this
    if image.mode not in _SIXTEEN_BIT_MODES:
        return None
    if image.format != "TIFF":
        return 65535
    bits = _tag(image, 258)
    if bits not in (12, 16) or _tag(image, 262) not in (0, 1):
        raise ImageError(f"a TIFF of {bits} bits and photometric interpretation {_tag(image, 262)} is not supported")
    return 2**bits - 1


def _scale_transparent_colour(image: Image.Image) -> None:
    """Bring the transparent colour of a PNG to the range that Pillow unpacks its pixels to.

    Raises:
        ImageError: the colour has 16 bits a channel, the pixels will have 8: which are meant is lost.
    """
    transparent = image.info.get("transparency")
    tiles = getattr(image, "tile", None)
    if image.format != "PNG" or transparent is None or not tiles:
        return
    packing = str(tiles[0][3])
    if packing in ("L;2", "L;4") and isinstance(transparent, int):
        image.info["transparency"] = transparent * {"L;2": 85, "L;4": 17}[packing]
    elif "RGB;16" in packing:
        raise ImageError("a transparent colour in a PNG of 16 bits a channel is not supported; flatten it first")


def _high_depth(image: Image.Image, profile: bytes | None, white: int, inverted: bool) -> NDArray[np.float32]:
    """Return `(H, W, 3)` float pixels of a grey image of more than 8 bits; the channels share their memory."""
    values = np.asarray(image)
    transparent = image.info.get("transparency")
    see_through = values == transparent if isinstance(transparent, int) else None
    if profile:
        # Little CMS through Pillow has no 16-bit path; 8 bits keep the tone curve, which matters more.
        eight = (values * np.float32(255 / white)).round().clip(0, 255).astype(np.uint8)
        converted = _to_srgb(Image.fromarray(255 - eight if inverted else eight), profile)
        grey = np.asarray(converted.convert("L")).astype(np.float32) / np.float32(255)
    else:
        grey = values.astype(np.float32)
        grey /= np.float32(white)
        if inverted:
            np.subtract(1, grey, out=grey)
        np.clip(grey, 0, 1, out=grey)
    if see_through is not None:
        grey[see_through] = 1.0
    height, width = grey.shape
    return np.lib.stride_tricks.as_strided(grey, (height, width, 3), (*grey.strides, 0))


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    alpha = None
    if image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if profile:
        image = _apply_profile(image, profile)
    elif image.mode != "RGB":
        image = image.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=alpha)
        image = white
    return image


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
    except (OSError, ImageCms.PyCMSError) as error:
        raise ImageError(f"its ICC colour profile is damaged ({error}); strip or repair it") from error
    if space == "GRAY" and image.mode in {"1", "L"}:
        image = image.convert("L")
    elif space == "GRAY" and image.mode in {"RGB", "RGBA"} and _is_grey(image):
        image = image.convert("L")
    elif space == "RGB" and image.mode != "CMYK":
        image = image.convert("RGB")
    elif not (space == "CMYK" and image.mode == "CMYK"):
        raise ImageError(f"its ICC colour profile is for {space}, its pixels are {image.mode}; strip or repair it")
    try:
        converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
    except ImageCms.PyCMSError as error:
        raise ImageError(f"its ICC colour profile cannot be applied ({error}); strip or repair it") from error
    if converted is None:
        raise ImageError("its ICC colour profile cannot be applied; strip or repair it")
    return converted


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = image.convert("RGB").split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def _why_unidentified(stream: IO[bytes]) -> str:
    stream.seek(0)
    head = stream.read(64)
    if head[4:8] == b"ftyp" and head[8:12] in {b"heic", b"heix", b"mif1", b"msf1", b"hevc"}:
        return "HEIC/HEIF is not supported; convert it to JPEG or PNG first"
    for magic, name in (
        (b"%PDF", "a PDF"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "a gzip archive"),
        (b"<", "text (HTML, XML or SVG)"),
        (b"8BPS", "a Photoshop document"),
        (b"%!PS", "PostScript"),
        (b"\x00\x00\x01\x00", "an icon"),
    ):
        if head.lstrip().startswith(magic) or head.startswith(magic):
            return f"not a supported image: it looks like {name}"
    return f"not an image, or damaged in its header (supported: {', '.join(sorted(set(FORMATS) - {'DIB'}))})"
