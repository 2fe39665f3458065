"""File name endings that mark images when a folder is searched. Apart from decoding: needs no Pillow."""

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .avif .gif .bmp .dib .tif .tiff .jp2 .j2k .jpx .ppm .pgm .pbm .pnm"
    " .mpo .heic .heif".split()  # not supported, but a folder of phone photos should say so, not skip them
)

# Pictures of kinds that are not read: a search of a folder counts them instead of passing over them in silence.
UNREAD = frozenset(
    ".jxl .jxr .exr .hdr .pfm .dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .raf .pef .srw .x3f .3fr .iiq .raw"
    " .tga .psd .psb .xcf .svg .svgz .eps .ai .pcx .dds .ico .icns .bpg .qoi".split()
)
