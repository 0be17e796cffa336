"""Small files that claim, or unpack to, more than a memory holds: each must end in an error, in little memory."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace

from fuzz_binary import (
    list_archive_targets,
    list_idx_targets,
    list_norb_targets,
    list_record_targets,
    list_svhn_targets,
)
from fuzz_targets import Target, list_image_targets

MEGABYTE = bytes(2**20)


def list_bombs() -> Iterator[tuple[Target, bytes]]:
    """Yield the targets of readers, named after a bomb, with the bomb in place of their first file."""
    lists = (list_image_targets, list_idx_targets, list_norb_targets, list_svhn_targets, list_record_targets)
    targets = {target.name: target for targets in (*lists, list_archive_targets) for target in targets()}
    for reader, text, data in (*list_image_bombs(), *list_binary_bombs(), *list_archive_bombs()):
        yield replace(targets[reader], name=f"bomb {reader}, {text}", decode=None), data


def list_image_bombs() -> Iterator[tuple[str, str, bytes]]:
    """Yield images: the reader's name, what the bomb is, its bytes."""
    for side in (20_000, 100_000, 2**31 - 1):
        head = struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
        rows = min(100, side)
        pixels = deflate(2 * rows)
        parts = [(b"IHDR", head), (b"IDAT", pixels), (b"IEND", b"")]
        chunks = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts)
        yield "image png", f"{side}²", b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
        yield "image pgm", f"{side}²", f"P5 {side} {side} 255\n".encode() + bytes(1000)
        yield "image ppm", f"{side}²", f"P6 {side} {side} 255\n".encode() + bytes(1000)
        yield (
            "image bmp",
            f"{side}²",
            b"BM"
            + struct.pack("<IHHI", 1000, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
            + bytes(1000),
        )
    yield (
        "image gif",
        "65535²",
        b"GIF89a"
        + struct.pack("<2H", 65535, 65535)
        + b"\x80\0\0"
        + bytes(6)
        + b","
        + struct.pack("<4HB", 0, 0, 65535, 65535, 0)
        + b"\2\2\x4c\1\0;",
    )
    text = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">2I5B", 4, 4, 8, 0, 0, 0, 0)
    packed = b"icc\0\0" + deflate(300)
    profile = struct.pack(">I", len(packed)) + b"iCCP" + packed + struct.pack(">I", zlib.crc32(b"iCCP" + packed))
    yield "image png", "a profile of 300 MB", text + struct.pack(">I", zlib.crc32(text[12:])) + profile


def list_binary_bombs() -> Iterator[tuple[str, str, bytes]]:
    """Yield binary data sets."""
    huge = struct.pack(">4I", 0x803, *[2**32 - 1] * 3)
    yield "MNIST images", "2^96 bytes announced", huge
    yield "MNIST images gz", "2^96 bytes announced", gzip.compress(huge)
    yield "MNIST images gz", "2 GB unpacked, 360 announced", compress(struct.pack(">4I", 0x803, 12, 6, 5), 2000)
    yield "MNIST labels gz", "2 GB unpacked, 12 announced", compress(struct.pack(">2I", 0x801, 12), 2000)
    yield "MNIST labels gz", "nothing but zeros, 2 GB", compress(b"", 2000)
    yield "NORB dat", "2^128 bytes announced", struct.pack("<6I", 0x1E3D4C55, 4, *[2**32 - 1] * 4)
    yield "NORB dat gz", "2 GB unpacked", compress(struct.pack("<6I", 0x1E3D4C55, 4, 3, 2, 96, 96), 2000)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    sides = struct.pack("<10I", 6, 8, 9, 0, 5, 16, 32, 32, 3, 10) + struct.pack("<2I", 1, 1) + b"X".ljust(8, b"\0")
    start = struct.pack("<2I", 14, 2**31 + len(sides)) + sides + struct.pack("<2I", 2, 2**31 - 16)
    for text, inflated in (("2 GB inflated, 30 kB announced", start), ("zeros, 2 GB inflated", b"")):
        variable = deflate(2000, inflated)
        yield "SVHN deflated", text, head + struct.pack("<2I", 15, len(variable)) + variable
    yield "SVHN plain", "gz of 2 GB", compress(head, 2000)


def list_archive_bombs() -> Iterator[tuple[str, str, bytes]]:
    """Yield archives."""
    for text, method in (("deflate", zipfile.ZIP_DEFLATED), ("bzip2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA)):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive, archive.open("zeros", "w") as file:
            for _ in range(600):
                file.write(MEGABYTE)
        yield "archive zip", f"600 MB by {text}", buffer.getvalue()
    entry = b"PK\1\2" + bytes(24) + b"\1\0" + bytes(16) + b"a"
    count = 2 * 10**6
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, count * len(entry), 30, 0)
    yield "archive zip", "a directory of two million", b"PK\3\4" + bytes(26) + entry * count + end
    info = tarfile.TarInfo("zeros")
    info.size = 2**40
    yield "archive tar.gz", "2 GB of zeros", compress(info.tobuf(tarfile.GNU_FORMAT), 2000)
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", 2**20
    content = b"1048576 comment=".ljust(2**20 - 1, b"a") + b"\n"
    yield "archive tar.gz", "600 headers of 1 MB", gzip.compress((info.tobuf(tarfile.USTAR_FORMAT) + content) * 600, 1)


def deflate(megabytes: int, start: bytes = b"", wbits: int = 15) -> bytes:
    """Return zeros deflated, after other bytes."""
    packer = zlib.compressobj(9, wbits=wbits)
    return packer.compress(start) + b"".join(packer.compress(MEGABYTE) for _ in range(megabytes)) + packer.flush()


def compress(start: bytes, megabytes: int) -> bytes:
    """Return zeros as gzip, after other bytes."""
    return deflate(megabytes, start, 31)
