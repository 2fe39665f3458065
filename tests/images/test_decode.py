"""Decoding: what a colour-managed viewer shows, or a reason why not. Folders of bad files."""

import io
import os
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from leafiqa.errors import ImageError
from leafiqa.images.decoding import MAX_PIXELS, decode, open_pil
from tests.conftest import make_picture


def encode(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(kind, payload):
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png_header(width, height, depth=8, colour=2):
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_lossless_formats_give_the_very_pixels(picture, format):
    quantised = np.asarray(Image.fromarray(picture).quantize(200).convert("RGB"))
    assert (decode(encode(Image.fromarray(quantised), format)).pixels == quantised).all()


@pytest.mark.parametrize("size", [(900, 700), (1, 400_001), (400_001, 1), (350_000, 3)])
def test_large_pictures_are_taken_over_strip_by_strip(size):
    """Of more bytes than one strip, of one row a strip, and with a last strip that is not full."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    found = decode(encode(Image.fromarray(pixels), "PPM")).pixels
    assert found.flags.writeable and found.flags.c_contiguous and (found == pixels).all()


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="page faults are counted on Linux alone")
def test_threads_decode_in_memory_that_is_there_already(tmp_path):
    """In a process of its own, with the C library's own settings: fresh memory has a page fault every 4 KiB."""
    Image.effect_noise((1600, 1200), 40).convert("RGB").save(tmp_path / "a.jpg", quality=90)
    code = """
import resource, sys
from leafiqa.images.decoding import decode
from leafiqa.images.loading import load_ahead
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in load_ahead(decode, [sys.argv[1]] * 8, workers=2): pass
before = faults()
for _ in load_ahead(decode, [sys.argv[1]] * 20, workers=2): pass
print((faults() - before) / 20)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", code, str(tmp_path / "a.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    # The pixels alone have 1,400 pages, and lie in memory two to four times.
    assert float(done.stdout) < 400


def test_exif_orientation_is_applied(picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    pixels = decode(encode(Image.fromarray(picture), "PNG", exif=exif)).pixels
    assert (pixels == np.rot90(picture, -1)).all()


def test_transparency_is_laid_over_white():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:2, :, 3] = 255
    rgba[2, :, 3] = 128
    pixels = decode(encode(Image.fromarray(rgba, "RGBA"), "PNG")).pixels
    assert (pixels[:2] == (200, 0, 0)).all()
    assert (pixels[3] == 255).all()
    assert abs(int(pixels[2, 0, 1]) - 127) <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    pixels = decode(encode(palette, "PNG", transparency=0)).pixels
    assert pixels.tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_sixteen_bit_grey_keeps_its_precision():
    ramp = np.linspace(0, 65535, 4096).astype(np.uint16).reshape(64, 64)
    pixels = decode(encode(Image.fromarray(ramp), "PNG")).pixels
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[..., 1], ramp / 65535, atol=1e-6)


def test_sixteen_bit_colour_is_read_to_eight():
    row = b"\x00" + struct.pack(">3H", 0xFFFF, 0x8000, 0x0100)
    data = png_header(1, 1, depth=16) + png_chunk(b"IDAT", zlib.compress(row)) + png_chunk(b"IEND", b"")
    assert decode(data).pixels.tolist() == [[[255, 128, 1]]]


def test_grey_one_bit_and_cmyk():
    assert decode(encode(Image.new("L", (2, 2), 77), "PNG")).pixels.tolist() == [[[77] * 3] * 2] * 2
    assert decode(encode(Image.new("1", (2, 2), 1), "PNG")).pixels.min() == 255
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    pixels = decode(encode(cmyk, "TIFF")).pixels
    assert (pixels[..., 0] > 230).all() and (pixels[..., 1:] < 60).all()


def test_icc_profile_is_converted():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = Image.new("RGB", (8, 8), (120, 130, 140))
    same = decode(encode(grey, "PNG", icc_profile=lab)).pixels
    assert np.abs(same.astype(int) - (120, 130, 140)).max() <= 1
    swapped = decode(encode(grey, "PNG", icc_profile=swapped_primaries(lab))).pixels
    assert swapped[0, 0, 0] > swapped[0, 0, 2]  # red and blue change places


def swapped_primaries(profile):
    """An sRGB profile with its red and blue primaries exchanged, so that conversion has a known, large effect."""
    tags = {profile[i : i + 4]: i for i in range(132, 132 + 12 * struct.unpack(">I", profile[128:132])[0], 12)}
    data = bytearray(profile)
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    data[red + 4 : red + 12], data[blue + 4 : blue + 12] = profile[blue + 4 : blue + 12], profile[red + 4 : red + 12]
    return bytes(data)


def test_animation_and_mislabelled_image(picture, tmp_path):
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    decoded = decode(encode(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    assert decoded.notes == ["animated: first of 2 frames"] and (decoded.pixels == picture).all()
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encode(frames[0], "PNG"))
    assert (decode(path).pixels == picture).all()


def bad_files():
    """Name and bytes of files that must be refused."""
    image = Image.fromarray(make_picture())
    png, jpeg = encode(image, "PNG"), encode(image, "JPEG", quality=90)
    webp, gif, tiff = encode(image, "WEBP"), encode(image, "GIF"), encode(image, "TIFF", compression="tiff_lzw")
    bmp, jp2, avif = encode(image, "BMP"), encode(image, "JPEG2000"), encode(image, "AVIF")
    ppm = encode(image, "PPM")
    floats = Image.fromarray(np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32))
    files = {
        "empty.jpg": b"",
        "one_byte.png": b"\x89",
        "zeros.png": bytes(5000),
        "text.jpg": b"hello, this is no picture\n" * 50,
        "html.png": b"<!DOCTYPE html><html><body>404</body></html>",
        "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "pdf.jpg": b"%PDF-1.7\n" + bytes(100),
        "zip.jpg": b"PK\x03\x04" + bytes(200),
        "gzip.png": b"\x1f\x8b\x08" + bytes(100),
        "psd.jpg": b"8BPS\x00\x01" + bytes(100),
        "eps.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "icon.png": b"\x00\x00\x01\x00\x01\x00" + bytes(100),
        "heic.jpg": b"\x00\x00\x00\x18ftypheic" + bytes(100),
        "random.jpg": np.random.default_rng(1).bytes(20000),
        "jpeg_magic_only.jpg": b"\xff\xd8\xff\xe0" + bytes(300),
        "png_magic_only.png": png[:8],
        "png_no_data.png": png_header(8, 8) + png_chunk(b"IEND", b""),
        "png_zero_width.png": png_header(0, 8) + png_chunk(b"IEND", b""),
        "png_bomb.png": png_header(60000, 60000) + png_chunk(b"IDAT", zlib.compress(bytes(10**6))),
        "png_over_limit.png": png_header(12000, 10000) + png_chunk(b"IDAT", zlib.compress(bytes(10**6))),
        "png_bad_zlib.png": png_header(8, 8) + png_chunk(b"IDAT", b"no zlib") + png_chunk(b"IEND", b""),
        "png_bad_crc.png": png[:30] + bytes([png[30] ^ 255]) + png[31:],
        "png_flipped_data.png": png[: len(png) // 2] + bytes([png[len(png) // 2] ^ 255]) + png[len(png) // 2 + 1 :],
        "png_text_bomb.png": png_header(8, 8) + png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8))),
        "png_bad_icc.png": encode(image, "PNG", icc_profile=b"this is no profile" * 20),
        "png_float_pixels.tif": encode(floats, "TIFF"),
        "int32_pixels.tif": encode(Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8)), "TIFF"),
        "cmyk_with_rgb_profile.tif": encode(
            Image.new("CMYK", (8, 8)),
            "TIFF",
            icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        ),
        "bmp_huge.bmp": bmp[:18] + struct.pack("<ii", 50000, 50000) + bmp[26:],
        "bmp_negative.bmp": bmp[:18] + struct.pack("<ii", -5, 5) + bmp[26:],
        "tiff_bad_offset.tif": tiff[:4] + struct.pack("<I", 2**31) + tiff[8:],
        "gif_no_frame.gif": gif[:13] + b";",
        "ppm_no_pixels.ppm": b"P6\n100 100\n255\n",
        "ppm_words.ppm": b"P6\nten ten\n255\n" + bytes(300),
    }
    encoded = {"png": png, "jpg": jpeg, "webp": webp, "gif": gif, "tif": tiff, "bmp": bmp, "jp2": jp2, "ppm": ppm}
    encoded["avif"] = avif
    for ending, data in encoded.items():
        files[f"half.{ending}"] = data[: len(data) // 2]
        files[f"header_only.{ending}"] = data[:40]
    return files


BAD = bad_files()


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_file_is_refused_with_a_reason(name):
    with pytest.raises(ImageError) as caught:
        decode(BAD[name])
    assert 5 < len(str(caught.value)) < 400


def test_there_are_at_least_forty_kinds():
    assert len(BAD) >= 40


def test_places_that_are_no_files(tmp_path):
    for place in (tmp_path, tmp_path / "missing.png", "a\0b", "/dev/null"):
        with pytest.raises(ImageError):
            decode(place)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "JPEG2000", "PPM", "AVIF"])
def test_fuzzed_files_are_pictures_or_errors(picture, format):
    """Flipped bytes and cuts: anything but an `ImageError` or plausible pixels is a bug."""
    rng = np.random.default_rng(len(format))
    good = encode(Image.fromarray(picture), format)
    outcomes = {"decoded": 0, "refused": 0}
    for _ in range(60):
        data = bytearray(good)
        for position in rng.integers(0, min(len(data), 400) if rng.integers(2) else len(data), rng.integers(1, 6)):
            data[position] = rng.integers(256)
        if rng.integers(3) == 0:
            data = data[: rng.integers(1, len(data))]
        try:
            pixels = decode(bytes(data)).pixels
        except ImageError:
            outcomes["refused"] += 1
        else:
            outcomes["decoded"] += 1
            assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
    assert outcomes["refused"] > 0


def test_first_use_from_many_threads(picture):
    data, results = encode(Image.fromarray(picture), "PNG"), []
    threads = [threading.Thread(target=lambda: results.append(decode(data).pixels.sum())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1 and len(results) == 8


def tiff(pixels, bits, photometric):
    """A TIFF of one 16-bit (or packed 12-bit) grey strip, written by hand."""
    height, width = pixels.shape
    if bits == 12:
        flat = pixels.astype(np.uint32).reshape(-1, 2)
        packed = (flat[:, 0] << 12 | flat[:, 1]).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
        data = packed.tobytes()
    else:
        data = pixels.astype("<u2").tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, height)]
    tags.append((279, len(data)))
    start = 8 + len(data)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", start) + data + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def test_high_depth_grey_by_its_own_white():
    ramp = np.array([[0, 65535, 32768, 1000]], np.uint16)
    assert decode(tiff(ramp, 16, 1)).pixels[0, :, 0].tolist() == pytest.approx((ramp[0] / 65535).tolist())
    assert decode(tiff(ramp, 16, 0)).pixels[0, :, 0].tolist() == pytest.approx((1 - ramp[0] / 65535).tolist(), abs=1e-6)
    twelve = np.array([[0, 4095, 2048, 100]], np.uint16)
    try:
        pixels = decode(tiff(twelve, 12, 1)).pixels
    except ImageError:
        pass  # refused is right, too; black for white is not
    else:
        assert pixels[0, :, 0].tolist() == pytest.approx((twelve[0] / 4095).tolist(), abs=1e-6)
    pgm = b"P5 4 1 65535\n" + ramp.astype(">u2").tobytes()
    assert decode(pgm).pixels[0, :, 2].tolist() == pytest.approx((ramp[0] / 65535).tolist())


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_transparent_colour_of_every_grey_depth_is_white(depth):
    """Two pixels, value 0 and value 1; the latter is the transparent colour."""
    row = {1: b"\x40", 2: b"\x10", 4: b"\x01", 8: b"\x00\x01", 16: b"\x00\x00\x00\x01"}[depth]
    content = png_header(2, 1, depth, 0) + png_chunk(b"tRNS", struct.pack(">H", 1))
    content += png_chunk(b"IDAT", zlib.compress(b"\0" + row)) + png_chunk(b"IEND", b"")
    pixels = decode(content).pixels.astype(float)
    white = 1 if depth == 16 else 255
    assert pixels[0, 0].tolist() == [0, 0, 0] and pixels[0, 1].tolist() == [white] * 3


def test_colours_that_pillow_does_not_manage_are_refused():
    body = png_chunk(b"IDAT", zlib.compress(b"\0\x10\x20\x30")) + png_chunk(b"IEND", b"")
    srgb, pq = (png_header(1, 1) + png_chunk(b"cICP", bytes(code)) + body for code in ([1, 13, 0, 1], [9, 16, 0, 1]))
    assert decode(srgb).pixels.tolist() == [[[16, 32, 48]]]
    with pytest.raises(ImageError, match="not sRGB"):
        decode(pq)
    deep = png_header(1, 1, 16, 2) + png_chunk(b"tRNS", bytes(6))
    deep += png_chunk(b"IDAT", zlib.compress(bytes(7))) + png_chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="transparent colour"):
        decode(deep)


@pytest.mark.parametrize("lenient", [False, True])
def test_truncated_files_are_refused_whatever_pillow_was_told(picture, lenient, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    for format in ("JPEG", "PNG", "WEBP"):
        content = encode(Image.fromarray(picture), format)
        with pytest.raises(ImageError):
            decode(content[: len(content) * 2 // 3])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


def test_a_callers_pil_image(picture):
    content = encode(Image.fromarray(picture), "PNG")
    with pytest.raises(ImageError, match="damaged or truncated"):
        open_pil(Image.open(io.BytesIO(content[: len(content) // 2])))
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    gif = Image.open(io.BytesIO(encode(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    gif.seek(1)
    decoded = open_pil(gif)
    assert decoded.notes == ["animated: number 2 of 2 frames"] and gif.tell() == 1
    assert np.abs(decoded.pixels.astype(int) - (255 - picture)).mean() < 20


def test_text_files_and_huge_files_of_nothing(tmp_path):
    with pytest.raises(ImageError, match="binary mode"):
        decode(io.StringIO("text"))
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(40 * 10**9)  # sparse
    with pytest.raises(ImageError, match="not an image"):
        decode(tmp_path / "huge.jpg")
    with pytest.raises(ImageError, match="cannot read"):
        decode("a" * 300 + ".jpg")


@pytest.mark.parametrize("content", [b"h", b"hi\n", b"\xff\xd8", b"\x89PNG", b"four", b"x" * 15])
def test_a_few_bytes_are_no_image(content):
    with pytest.raises(ImageError, match=r"^not an image, or damaged in its header"):
        decode(content)
