"""Good photographs that were refused as damaged, and colours and previews that were scored as what they are not."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

import leafiqa
from leafiqa.images.decoding import MAX_PIXELS, decode, open_pil
from tests.conftest import make_picture


def saved(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(png, *chunks):
    """Put chunks after the header of a PNG."""
    return png[:33] + b"".join(chunks) + png[33:]


@pytest.fixture(scope="module")
def photograph():
    return Image.fromarray(make_picture(40, 60))


def test_two_hundred_megapixels_are_read_and_more_is_said_to_be_too_much(tmp_path):
    large = saved(Image.new("L", (16320, 12240), 90), "PNG", compress_level=1)
    assert Image.MAX_IMAGE_PIXELS is not None  # Pillow's own limit, which stays as it is, would refuse it
    before = Image.MAX_IMAGE_PIXELS
    assert decode(large).pixels.shape == (12240, 16320, 3)
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(leafiqa.ImageError, match=r"400 megapixels, above the limit of 268"):
        decode(png)
    assert Image.MAX_IMAGE_PIXELS == before and MAX_PIXELS == 2**28


def test_odd_exif_does_not_spoil_a_rotated_photograph(photograph):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = 72.0  # resolution, a rational
    content = bytearray(saved(photograph, "JPEG", quality=95, exif=exif.tobytes()))
    order = next(order for order in "<>" if struct.pack(order + "II", 72, 1) in content)
    place = content.index(struct.pack(order + "II", 72, 1))
    entry = content.index(struct.pack(order + "H", 0x011A))
    # A signed rational that Pillow reads, but cannot write again.
    content[entry + 2 : entry + 4] = struct.pack(order + "H", 10)
    content[place : place + 8] = struct.pack(order + "II", 0x80000000, 1)
    with pytest.raises(Exception, match="out of range"):
        ImageOps.exif_transpose(Image.open(io.BytesIO(bytes(content))))
    assert decode(bytes(content)).pixels.shape == (60, 40, 3)
    upright = decode(saved(photograph.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95)).pixels
    plain = decode(saved(photograph, "JPEG", quality=95)).pixels
    assert plain.shape == (40, 60, 3) and upright.shape == (60, 40, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_applied(photograph, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(saved(photograph, "PNG", exif=exif)).pixels
    tagged = Image.open(io.BytesIO(saved(photograph, "PNG", exif=exif)))
    assert np.array_equal(found, np.asarray(ImageOps.exif_transpose(tagged)))


def test_a_png_with_long_texts_and_a_large_profile_is_read(photograph):
    png = saved(photograph, "PNG")
    expected = decode(png).pixels
    long = bytes(3 << 20)
    for extra in (
        chunk(b"zTXt", b"note\0\0" + zlib.compress(long)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(long)),
        chunk(b"tEXt", b"note\0" + b"x" * (3 << 20)),
        b"".join(chunk(b"zTXt", b"note%d\0\0" % i + zlib.compress(bytes(1000000))) for i in range(70)),
    ):
        assert np.array_equal(decode(with_chunks(png, extra)).pixels, expected)
        end = png.rindex(b"IEND") - 4
        assert np.array_equal(decode(png[:end] + extra + png[end:]).pixels, expected)  # after the pixels
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    padded = struct.pack(">I", len(profile) + (2 << 20)) + profile[4:] + bytes(2 << 20)
    found = decode(with_chunks(png, chunk(b"iCCP", b"icc\0\0" + zlib.compress(padded)))).pixels
    assert np.abs(found.astype(int) - expected).max() <= 2


def nclx(avif, primaries, transfer):
    """Return an AVIF whose declared colours are others."""
    place = avif.index(b"nclx") + 4
    return avif[:place] + struct.pack(">HH", primaries, transfer) + avif[place + 4 :]


@pytest.mark.skipif("AVIF" not in Image.registered_extensions().values(), reason="this Pillow writes no AVIF")
def test_wide_gamut_and_hdr_avif_is_refused_as_png_is(photograph):
    avif, png = saved(photograph, "AVIF", quality=90), saved(photograph, "PNG")
    assert decode(avif).pixels.shape == (40, 60, 3)
    for primaries, transfer in ((9, 16), (9, 18), (12, 13), (1, 16), (9, 14)):
        for content in (
            nclx(avif, primaries, transfer),
            with_chunks(png, chunk(b"cICP", bytes([primaries, transfer, 0, 1]))),
        ):
            with pytest.raises(leafiqa.ImageError, match=f"colour primaries {primaries}, transfer function {transfer}"):
                decode(content)
    branded = nclx(avif, 9, 16).replace(b"ftypavif", b"ftypmif1", 1)
    with pytest.raises(leafiqa.ImageError, match="colour primaries 9"):
        decode(branded)
    for primaries, transfer in ((1, 13), (2, 2), (1, 1)):
        assert decode(nclx(avif, primaries, transfer)).pixels.shape == (40, 60, 3)
        assert decode(with_chunks(png, chunk(b"cICP", bytes([primaries, transfer, 0, 1])))).pixels.shape == (40, 60, 3)


def test_camera_raw_is_refused(photograph):
    from PIL import TiffImagePlugin

    for tag, value, kind in ((254, 1, 4), (255, 2, 3), (50706, b"\x01\x04\x00\x00", 1)):
        directory = TiffImagePlugin.ImageFileDirectory_v2()
        directory[tag] = value
        directory.tagtype[tag] = kind
        with pytest.raises(leafiqa.ImageError, match=r"camera raw file.*preview"):
            decode(saved(photograph, "TIFF", tiffinfo=directory))
        with (
            Image.open(io.BytesIO(saved(photograph, "TIFF", tiffinfo=directory))) as opened,
            pytest.raises(leafiqa.ImageError, match="camera raw file"),
        ):
            open_pil(opened)
    assert decode(saved(photograph, "TIFF")).pixels.shape == (40, 60, 3)


Image.init()
GOOD = {
    name: saved(Image.fromarray(make_picture(24, 30)), name)
    for name in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "JPEG2000", "AVIF")
    if name in Image.SAVE
}


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_mutated_files_raise_nothing_but_image_errors(data):
    content = bytearray(GOOD[data.draw(st.sampled_from(sorted(GOOD)))])
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    try:
        pixels = decode(bytes(content)).pixels
    except leafiqa.ImageError as error:
        assert str(error)
    else:
        assert pixels.ndim == 3 and pixels.shape[2] == 3


def test_finding_says_what_it_passes_over_and_follows_no_links(tmp_path, monkeypatch):
    from leafiqa.images.find import find_images, need_images

    (tmp_path / "a").mkdir()
    for name in ("1.png", "2.jpg", "x.exr", "y.jxl", "z.jxl", "raw.DNG", "._1.png", "notes.txt"):
        (tmp_path / "a" / name).write_bytes(b"")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "also").symlink_to(tmp_path / "a")
    found = find_images(tmp_path, recursive=True)
    assert [os.path.basename(file) for file in found] == ["1.png", "2.jpg"]
    assert found.passed_over == {".exr": 1, ".jxl": 2, ".dng": 1}
    assert [line.split()[0] for line in found.remarks()] == ["1", "1", "2"]
    for pattern, names in (
        ("**/*.png", ["a/1.png"]),
        ("a/**/*.jp*g", ["a/2.jpg"]),
        ("**", sorted(f"a/{name}" for name in ("1.png", "2.jpg", "x.exr", "y.jxl", "z.jxl", "raw.DNG", "notes.txt"))),
        ("a/[12].*", ["a/1.png", "a/2.jpg"]),
        ("*/**/[0-9]*.png", ["a/1.png"]),
    ):
        monkeypatch.chdir(tmp_path)
        assert sorted(find_images(pattern, recursive=False)) == names, pattern
        absolute = sorted(find_images(str(tmp_path / pattern), recursive=False))
        assert [os.path.relpath(file, tmp_path) for file in absolute] == names, pattern
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "only.dng").write_bytes(b"")
    with pytest.raises(leafiqa.InputError, match=r"no images found in .*1 file\(s\) ending in \.dng.*-r on"):
        need_images(tmp_path / "b", recursive=False)


def test_folders_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    from leafiqa.images.find import find_images

    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "1.png").write_bytes(b"")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuses(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)  # root may read anything
    found = find_images(tmp_path, recursive=True)
    assert len(found) == 1 and found.unreadable == [(str(tmp_path / "closed"), "Permission denied")]
    assert "closed: Permission denied: the pictures in it are missing" in found.remarks()[0]
