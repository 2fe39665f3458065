"""File name endings that mark images when a folder is searched. Apart from decoding: needs no Pillow."""

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .avif .gif .bmp .dib .tif .tiff .jp2 .j2k .jpx .ppm .pgm .pbm .pnm"
    " .heic .heif".split()  # not supported, but a folder of phone photos should say so, not skip them
)
