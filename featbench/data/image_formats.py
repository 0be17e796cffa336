"""Which format a file has, by its first bytes: a name says little, and Pillow is to try no format but one of these."""

from __future__ import annotations

import re

HEAD = 1024
"""Bytes of a file that its format is told from."""

READ = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "PPM": "PBM, PGM, PPM",
    "BMP": "BMP",
    "GIF": "GIF",
    "WEBP": "WebP",
    "TIFF": "TIFF",
}
"""The formats that are read: Pillow's names, and those that people know."""

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".pgm", ".ppm", ".pnm", ".pbm", ".bmp"),
    *(".webp", ".tif", ".tiff", ".gif"),
)
"""Endings of names that promise an image, in any case: such a file is taken, and named if it holds none."""

RAW_ENDINGS = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef"),
    *(".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
)
"""Endings of cameras' raw files: most are TIFF files to look at, whose first image is a preview."""

PNM = re.compile(rb"P[1-6](?:\s|#[^\r\n]*[\r\n])+\d+(?:\s|#[^\r\n]*[\r\n])+\d+(?:\s|#[^\r\n]*[\r\n])")
"""The beginning of a PBM, PGM or PPM file up to its height."""

_BITMAP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
"""Sizes of the headers that follow the file header of a BMP file: text may begin with BM too."""

_OTHERS = (
    (rb"....ftyp(avif|avis)", "AVIF"),
    (rb"....ftyp(hei[cfmsx]|hev[cmsx]|mif1|msf1)", "HEIC"),
    (rb"....ftyp(qt  |mp4|isom|M4V|avc1|3gp)", "a video"),
    (rb"\x1aE\xdf\xa3|RIFF....AVI |FLV", "a video"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"%PDF", "PDF"),
    (rb"\xd7\xcd\xc6\x9a|\x01\x00\x09\x00\x00\x03", "WMF"),
    (rb"\x01\x00\x00\x00.{36} EMF", "EMF"),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*|<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg", "SVG"),
    (rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (rb"8BPS", "Photoshop"),
    (rb"gimp xcf", "GIMP"),
    (rb"DDS ", "DDS"),
    (rb"qoif", "QOI"),
    (rb"v/1\x01", "OpenEXR"),
    (rb"#\?RADIANCE|#\?RGBE", "Radiance HDR"),
    (rb"SIMPLE  =", "FITS"),
    (rb"\x89HDF", "HDF5"),
    (rb"\x93NUMPY", "an array of numpy"),
    (rb"\x00\x00[\x01\x02]\x00[^\x00]\x00", "ICO"),
    (rb"icns", "ICNS"),
    (rb"P7\s|P[fF]\s", "PAM or PFM"),
    (rb".{128}DICM", "DICOM"),
    (rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "an archive"),
    (rb"(?i)\s*<(!doctype html|html)", "a web page"),
)
"""Patterns of the first bytes of other formats, and what messages call these."""


def find_format(head: bytes) -> str | None:
    """Return Pillow's name of the format that the first `HEAD` bytes of a file show, of those in `READ`; else None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS:
        return "BMP"
    return "PPM" if PNM.match(head) else None


def name_other_format(head: bytes) -> str | None:
    """Return what people call the format that the first `HEAD` bytes of a file show, where it is known but not read."""
    return next((name for pattern, name in _OTHERS if re.match(pattern, head, re.DOTALL)), None)
