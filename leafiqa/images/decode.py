"""Decode one image file to RGB pixels as a colour-managed viewer would show them, or say why not."""

from __future__ import annotations

import io
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from leafiqa.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Formats that hold photographs and whose decoders run no other program (EPS would start Ghostscript).
# Pillow's JPEG plugin also opens MPO, the several-pictures JPEG of phones.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM")
MAX_PIXELS = 100_000_000

_EIGHT_BIT_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_SIXTEEN_BIT_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}
_SRGB = ImageCms.createProfile("sRGB")
_registering = threading.Lock()


@dataclass
class Decoded:
    """One decoded image.

    Attributes:
        pixels: `(H, W, 3)` RGB in sRGB, uint8, or float32 in [0, 1] where the file holds 16 bits.
        notes: what the reader should know, such as "animated: first of 12 frames".
    """

    pixels: NDArray[np.uint8] | NDArray[np.float32]
    notes: list[str] = field(default_factory=list)


def decode(source: str | os.PathLike[str] | bytes | IO[bytes]) -> Decoded:
    """Read and decode an image.

    EXIF orientation is applied, an embedded ICC profile is converted to sRGB, transparency is laid over white,
    and of an animation the first frame is taken. A truncated, mislabelled or unsupported file is an error.

    Args:
        source: a path, the bytes of a file, or a binary file object (read from its current position).

    Raises:
        ImageError: the file cannot be read or cannot be decoded faithfully; the message says why.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        stream: IO[bytes] = io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir():
            raise ImageError(f"{path} is a folder; pass its files, or use `leafiqa score -r {path}`")
        if path.exists() and not path.is_file():
            raise ImageError(f"{path} is not a regular file")
        try:
            stream = io.BytesIO(path.read_bytes())
        except OSError as error:
            raise ImageError(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:  # an embedded NUL
            raise ImageError(f"cannot read {str(source)!r}: {error}") from error
    else:
        stream = io.BytesIO(source.read())
    if not stream.getbuffer().nbytes:  # type: ignore[attr-defined]
        raise ImageError("the file is empty")
    with _registering:
        Image.init()  # Pillow registers its plugins on first use, which is not safe in threads
    try:
        with Image.open(stream, formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            return from_pil(image)
    except UnidentifiedImageError as error:
        raise ImageError(_why_unidentified(stream)) from error
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("not enough memory to decode it") from error
    except Exception as error:
        # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and others on damaged files.
        raise ImageError(f"damaged or truncated: {str(error) or type(error).__name__}") from error


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
    notes = []
    # MPO and some TIFFs hold further pictures (a depth map, a thumbnail) which are no animation.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format in {"GIF", "PNG", "WEBP", "AVIF"}:
        notes.append(f"animated: first of {frames} frames")
    elif frames > 1 and image.format == "TIFF":
        notes.append(f"{frames} pages: first page")
    if frames > 1 and image.tell() != 0:
        image.seek(0)
    image.load()
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if image.mode in _SIXTEEN_BIT_MODES:
        return Decoded(_sixteen_bit(image, profile), notes)
    if image.mode not in _EIGHT_BIT_MODES:
        raise ImageError(
            f"pixel mode {image.mode!r} has no defined white and black; convert the image to 8 or 16 bits a channel"
        )
    return Decoded(np.asarray(_to_srgb(image, profile)), notes)


def _sixteen_bit(image: Image.Image, profile: bytes | None) -> NDArray[np.float32]:
    if profile:
        # Little CMS through Pillow has no 16-bit path; 8 bits keep the tone curve, which matters more.
        eight = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        return np.asarray(_to_srgb(eight, profile)).astype(np.float32) / np.float32(255)
    grey = np.asarray(image).astype(np.float32) / 65535
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[np.asarray(image) == transparent] = 1.0
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.float32)


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
