"""Files that are no images, or damaged ones: each is refused by its name, whatever its decoder does."""

import io
import os
import socket
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, features

from featbench.data.image_formats import ENDINGS, READ, find_format, name_other_format
from featbench.data.image_reader import read_image
from featbench.errors import DataError

ROWS, COLUMNS = np.mgrid[:40, :50]
SMOOTH = (127 + 80 * np.sin(ROWS / 9) * np.cos(COLUMNS / 7)).astype(np.uint8)
COLOUR = np.stack([SMOOTH, SMOOTH[::-1], 255 - SMOOTH], axis=2)


def encode(kind, array=COLOUR, **options):
    buffer = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


WHOLE = {
    "jpeg": encode("JPEG"),
    "progressive": encode("JPEG", progressive=True),
    "cmyk": encode("JPEG", Image.fromarray(COLOUR).convert("CMYK")),
    "png": encode("PNG"),
    "interlaced": encode("PNG", SMOOTH.astype(np.uint16) * 257),
    "gif": encode("GIF", Image.fromarray(COLOUR).quantize(64)),
    "bmp": encode("BMP"),
    "webp": encode("WEBP"),
    "lossless": encode("WEBP", lossless=True),
    "tiff": encode("TIFF"),
    "lzw": encode("TIFF", compression="tiff_lzw"),
    "deflate": encode("TIFF", compression="tiff_deflate"),
    "float": encode("TIFF", (SMOOTH / 255).astype(np.float32)),
    "pgm": encode("PPM", SMOOTH),
    "ppm": encode("PPM"),
    "deep": b"P5\n50 40\n4095\n" + (SMOOTH.astype(">u2") * 16).tobytes(),
    "plain": b"P2\n50 40\n255\n" + " ".join(map(str, SMOOTH.ravel())).encode(),
}


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", WHOLE)
def test_the_content_tells_the_format_whatever_the_name(tmp_path, kind):
    expected = read_image(write(tmp_path / "image", WHOLE[kind]))
    for name in ("a.PNG", "a.jpg", "a.tiff", "a.txt", "a.eps", "A.Gif", "a"):
        assert np.array_equal(read_image(write(tmp_path / name, WHOLE[kind])), expected)
    assert find_format(WHOLE[kind]) in READ


@pytest.mark.parametrize("kind", WHOLE)
def test_files_that_are_cut_off_are_refused_by_name(tmp_path, kind):
    whole = WHOLE[kind]
    # A bitmap's rows are padded, and a plain map's last number may be shorter than it was.
    for length in (0, 1, 5, 12, 30, len(whole) // 3, len(whole) * 9 // 10, len(whole) - 4):
        with pytest.raises(DataError, match=r"cut\.jpg cannot be read as an image .*damaged"):
            read_image(write(tmp_path / "cut.jpg", whole[:length]))


@pytest.mark.parametrize("kind", WHOLE)
def test_damage_gives_pixels_or_a_data_error_and_no_warning(tmp_path, kind, recwarn):
    generator, whole = np.random.default_rng(0), WHOLE[kind]
    refused = 0
    for _ in range(60):
        content = bytearray(whole)
        for place in generator.integers(0, len(whole), 3):
            content[place] ^= 1 << generator.integers(0, 8)
        content[int(generator.integers(0, min(len(whole), 40)))] = generator.integers(0, 256)
        try:
            assert read_image(write(tmp_path / "a.png", content)).dtype == np.uint8
        except DataError as error:
            assert "a.png cannot be read as an image" in str(error)
            refused += 1
    assert refused > 5
    assert [str(one.message) for one in recwarn] == []


def test_every_byte_of_a_png_file_is_covered_by_a_checksum(tmp_path):
    whole = WHOLE["png"]
    for place in range(8, len(whole), 7):
        content = bytearray(whole)
        content[place] ^= 4
        with pytest.raises(DataError, match=r"a\.png cannot be read as an image"):
            read_image(write(tmp_path / "a.png", content))


@pytest.mark.parametrize("counts", [(0,), (2**32 - 1,), (3, 3)])
def test_a_damaged_animation_is_refused_without_a_warning(tmp_path, counts, recwarn):
    def chunk(count):
        content = b"acTL" + struct.pack(">II", count, 0)
        return struct.pack(">I", 8) + content + struct.pack(">I", zlib.crc32(content))

    whole = WHOLE["png"]
    with pytest.raises(DataError, match="its chunk acTL is damaged"):
        read_image(write(tmp_path / "a.png", whole[:33] + b"".join(map(chunk, counts)) + whole[33:]))
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    "raised", [RuntimeError, MemoryError, struct.error, zlib.error, SystemError, KeyError, OSError]
)
def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch, raised):
    def fail(*_):
        raise raised("strange")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(DataError, match=r"odd\.bmp cannot be read as an image \('?strange'?\): it is damaged"):
        read_image(write(tmp_path / "odd.bmp", WHOLE["bmp"]))


OTHERS = {
    "PostScript": encode("EPS"),
    "PDF": encode("PDF"),
    "ICO": encode("ICO", Image.fromarray(COLOUR).resize((16, 16))),
    "JPEG 2000": encode("JPEG2000"),
    "DDS": encode("DDS"),
    "ICNS": b"icns" + bytes(60),
    "PAM or PFM": encode("PPM", (SMOOTH / 255).astype(np.float32)),
    "WMF": b"\xd7\xcd\xc6\x9a" + bytes(60),
    "EMF": b"\x01\0\0\0" + bytes(36) + b" EMF" + bytes(60),
    "SVG": b'<?xml version="1.0"?>\n<!-- drawn by hand -->\n<svg width="3" height="4"/>',
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(60),
    "JPEG XL": b"\xff\x0a" + bytes(60),
    "Photoshop": b"8BPS\0\x01" + bytes(60),
    "GIMP": b"gimp xcf v011" + bytes(60),
    "a video": b"\0\0\0\x18ftypisom" + bytes(60),
    "DICOM": bytes(128) + b"DICM" + bytes(60),
    "an array of numpy": b"\x93NUMPY\x01\0" + bytes(60),
    "an archive": b"PK\x03\x04" + bytes(60),
    "a web page": b"<!DOCTYPE html><html></html>",
    "FITS": b"SIMPLE  =                    T" + bytes(60),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_refused_by_what_they_are(tmp_path, name):
    assert find_format(OTHERS[name]) is None
    assert name_other_format(OTHERS[name]) == name
    with pytest.raises(DataError, match=rf"a\.jpg cannot be read as an image: it is {name}, and not JPEG, PNG, "):
        read_image(write(tmp_path / "a.jpg", OTHERS[name]))


@pytest.mark.skipif(not features.check("avif"), reason="Pillow has no AVIF")
def test_avif_is_refused_whole_or_damaged(tmp_path):
    whole = encode("AVIF")
    for content in (whole, whole[: len(whole) // 2], whole[:40]):
        with pytest.raises(DataError, match="it is AVIF, and not JPEG"):
            read_image(write(tmp_path / "a.png", content))


@pytest.mark.parametrize(
    "content", [b"BMW is no image" + bytes(60), b"P5 is no map", b"P1 10", b"GIF90a", b"II*", b"x"]
)
def test_text_that_begins_as_an_image_does_is_none(tmp_path, content):
    assert find_format(content) is None
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image .*damaged"):
        read_image(write(tmp_path / "a.png", content))


def test_no_other_program_is_run_and_no_drawing_interpreted(tmp_path):
    script = write(tmp_path / "gs", b"#!/bin/sh\ntouch %s/ran\necho 10.0\n" % os.fsencode(tmp_path))
    script.chmod(0o755)
    write(tmp_path / "a.jpg", OTHERS["PostScript"])
    program = "from featbench import read_image\ntry: read_image('a.jpg')\nexcept Exception as error: print(error)"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    )
    assert "it is PostScript" in done.stdout
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("tag", [254, 50706])
def test_previews_of_raw_files_are_no_images(tmp_path, tag):
    path = tmp_path / "a.tif"
    Image.fromarray(COLOUR).save(path, tiffinfo={tag: 1})
    with pytest.raises(DataError, match="its first image is a preview"):
        read_image(path)


def png_header(width, height, depth=8, kind=2):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def bitmap(width, height):
    header = struct.pack("<LllHHLLllLL", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<LHHL", 154, 0, 0, 54) + header + bytes(100)


def jpeg(width, height):
    whole = bytearray(WHOLE["jpeg"])
    place = whole.index(b"\xff\xc0") + 5
    whole[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(whole)


HUGE = {
    "png": png_header(60000, 60000),
    "one bit": png_header(2**31 - 1, 2**31 - 1, 1, 0),
    "wide": png_header(2**30, 1, 8, 0),
    "palette": png_header(10000, 10000, 8, 3),
    "bmp": bitmap(50000, 50000),
    "jpeg": jpeg(65535, 65535),
    "gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + encode("GIF", SMOOTH)[10:],
    "ppm": b"P6 99999 99999 255\n" + bytes(100),
    "pgm": b"P5 99999 99999 65535\n" + bytes(100),
    "webp": encode("WEBP", Image.new("RGB", (6000, 6000))),
}


@pytest.mark.parametrize("kind", HUGE)
def test_huge_images_are_refused_before_memory_is_taken(tmp_path, kind, recwarn):
    with pytest.raises(
        DataError, match=r"a\.png cannot be read as an image: it has \d+×\d+ pixels, and [\d,]+ at most"
    ):
        read_image(write(tmp_path / "a.png", HUGE[kind]))
    assert [str(one.message) for one in recwarn] == []


def test_a_tile_larger_than_its_image_is_refused(tmp_path):
    whole = bytearray(encode("TIFF", COLOUR, compression="tiff_deflate"))
    # Strips become tiles: the tags of rows in a strip, 278, and of the planes, 284, are those of a tile's sides.
    for old, new in ((278, 322), (284, 323)):
        place = next(
            p for p in range(len(whole) - 12) if whole[p : p + 4] in (struct.pack("<HH", old, k) for k in (3, 4))
        )
        whole[place : place + 12] = struct.pack("<HHLL", new, 4, 1, 60000)
    with pytest.raises(DataError, match=r"it has 60000×60000 pixels"):
        read_image(write(tmp_path / "a.tif", whole))


def test_large_photographs_are_read_without_a_warning(tmp_path, recwarn):
    path = tmp_path / "a.png"
    Image.new("1", (10_000, 9_500), 1).save(path)
    read = read_image(path)
    assert read.shape == (9_500, 10_000)
    assert (read == 255).all()
    assert len(recwarn) == 0


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket must be short
        server.bind("socket.png")
        for name in ("pipe.png", "folder.png", "socket.png"):
            with pytest.raises(DataError, match=rf"{name} cannot be read as an image: it is no regular file"):
                read_image(tmp_path / name)
    with pytest.raises(DataError, match=r"/dev/zero cannot be read as an image: it is no regular file"):
        read_image("/dev/zero")


def test_files_that_cannot_be_opened_are_named_with_the_reason(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    for name, reason in (("loop.png", "symbolic links"), ("gone.png", "No such file"), ("x.png", "No such file")):
        with pytest.raises(DataError, match=rf"{name} cannot be read: .*{reason}"):
            read_image(tmp_path / name)


def test_names_that_are_not_utf8_are_read_and_printed(tmp_path):
    path = write(tmp_path / os.fsdecode(b"M\xfcn\n.png"), WHOLE["png"])
    assert np.array_equal(read_image(path), COLOUR)
    path.write_bytes(b"x")
    with pytest.raises(DataError, match=r"M\\xfcn\\n\.png cannot be read as an image"):
        read_image(path)


def test_endings_that_promise_an_image_are_those_of_formats_that_are_read():
    assert all(ending == ending.lower() and ending.startswith(".") for ending in ENDINGS)
    wanted = ".jpg .jpeg .jfif .png .pgm .ppm .pnm .bmp .webp .tif .tiff .gif"
    assert set(wanted.split()) <= set(ENDINGS)
