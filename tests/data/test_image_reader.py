"""What the reader makes of images, beside what Pillow or numpy make of the same pixels."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from featbench.data.image_reader import read_image, read_with_remarks
from featbench.errors import DataError

HEIGHT, WIDTH = 12, 17


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


GREY, COLOUR, CLEAR = noise(HEIGHT, WIDTH), noise(HEIGHT, WIDTH, 3, seed=1), noise(HEIGHT, WIDTH, 4, seed=2)

RAMP = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)


def save(path, image, **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def on_white(image):
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image.convert("RGBA"))
    return np.asarray(ground.convert("RGB"))


def make_png(pixels, depth, kind, chunks=(), interlace=0):
    """Return the bytes of a PNG file: rows of packed samples, and chunks between its header and its pixels."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)
    flat = pixels.reshape(height, -1)
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in flat]
    else:
        bits = np.unpackbits(flat.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - depth :].reshape(height, -1)
        rows = [np.packbits(row).tobytes() for row in bits]
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *(chunk(*one) for one in chunks), chunk(b"IDAT", packed), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def write(path, content):
    path.write_bytes(content)
    return path


def set_tag(path, tag, value):
    """Change the single short value of a tag of a TIFF file."""
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<HHL", tag, 3, 1)) + 8] = value
    path.write_bytes(data)


# Orientation.


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("array", [GREY, COLOUR], ids=["grey", "colour"])
def test_images_are_turned_as_they_were_held(tmp_path, ending, orientation, array):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{ending}", array, exif=exif)
    # Not by its name: Pillow maps grey TIFF files into memory then, and turns them wrongly.
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(path), expected)
    assert (read_image(path).shape[:2] == (HEIGHT, WIDTH)) == (orientation < 5)
    assert read_image(path).flags.c_contiguous


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize("prefix", [b"Exif\0\0", b"Exif\0\0Exif\0\0", b""])
def test_both_byte_orders_of_exif_are_known(tmp_path, order, prefix):
    mark = b"II" if order == "<" else b"MM"
    block = mark + struct.pack(f"{order}HLHHHLHH", 42, 8, 1, 0x0112, 3, 1, 6, 0) + bytes(4)
    path = save(tmp_path / "a.webp", COLOUR, lossless=True, exif=prefix + block)
    assert np.array_equal(read_image(path), np.rot90(COLOUR, -1))


@pytest.mark.parametrize("value", [0, 9, 300])
def test_an_orientation_that_exif_does_not_know_turns_nothing(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    assert np.array_equal(read_image(save(tmp_path / "a.png", COLOUR, exif=exif)), COLOUR)


@pytest.mark.parametrize(
    "block",
    [b"", b"II", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0", b"II*\0\x08\0\0\0\xff\xff\x12\x01\x03", b"nonsense" * 9],
)
def test_damaged_exif_says_nothing_of_the_pixels_and_prints_nothing(tmp_path, block, recwarn):
    path = save(tmp_path / "a.webp", COLOUR, lossless=True, exif=b"Exif\0\0" + block)
    assert np.array_equal(read_image(path), COLOUR)
    assert len(recwarn) == 0


def test_orientation_in_xmp_counts_where_there_is_no_exif(tmp_path):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    path = save(tmp_path / "a.webp", COLOUR, lossless=True, xmp=xmp)
    assert np.array_equal(read_image(path), np.rot90(COLOUR))


def test_transparency_and_orientation_together(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 5
    path = save(tmp_path / "a.png", CLEAR, exif=exif)
    assert np.array_equal(read_image(path), on_white(Image.fromarray(CLEAR)).swapaxes(0, 1))


# Transparency.


@pytest.mark.parametrize("options", [{}, {"format": "WEBP", "lossless": True, "exact": True}, {"format": "TIFF"}])
def test_transparent_colours_are_laid_on_white(tmp_path, options):
    path = save(tmp_path / "a.png", CLEAR, **options)
    read = read_image(path)
    assert np.array_equal(read, on_white(Image.fromarray(CLEAR)))
    # The same in plain numbers, but for rounding.
    alpha = CLEAR[:, :, 3:] / 255
    assert np.abs(read - (CLEAR[:, :, :3] * alpha + 255 * (1 - alpha))).max() <= 1


@pytest.mark.parametrize("alpha", [0, 255])
def test_nothing_is_left_of_what_is_clear_and_all_of_what_is_not(tmp_path, alpha):
    read = read_image(save(tmp_path / "a.png", np.dstack([COLOUR, np.full_like(GREY, alpha)])))
    assert np.array_equal(read, COLOUR if alpha else np.full_like(COLOUR, 255))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_transparent_grey_stays_grey(tmp_path, ending):
    image = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(noise(HEIGHT, WIDTH, seed=3))])
    read = read_image(save(tmp_path / f"a.{ending}", image))
    assert np.array_equal(read, on_white(image)[:, :, 0])


@pytest.mark.parametrize("clear", [3, bytes([0, 255, 100, 7])])
def test_transparent_entries_of_a_palette_become_white(tmp_path, clear):
    image = Image.fromarray(noise(HEIGHT, WIDTH) % 8, mode="P")
    image.putpalette(noise(24).tolist())
    path = save(tmp_path / "a.png", image, transparency=clear)
    with Image.open(path) as again:
        assert np.array_equal(read_image(path), on_white(again))
    if clear == 3:
        assert (read_image(path)[noise(HEIGHT, WIDTH) % 8 == 3] == 255).all()


def test_transparent_colour_of_a_gif_becomes_white(tmp_path):
    image = Image.fromarray(noise(HEIGHT, WIDTH) % 8, mode="P")
    image.putpalette(noise(24).tolist())
    path = save(tmp_path / "a.gif", image, transparency=2)
    with Image.open(path) as again:
        assert np.array_equal(read_image(path), on_white(again))


def test_transparent_colour_of_true_colours_becomes_white(tmp_path):
    array = COLOUR.copy()
    array[2:5, 3:9] = (10, 20, 30)
    read = read_image(save(tmp_path / "a.png", array, transparency=(10, 20, 30)))
    clear = (array == (10, 20, 30)).all(axis=2)
    assert clear.sum() == 18
    assert np.array_equal(read, np.where(clear[:, :, None], 255, array))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_transparent_value_of_grey_becomes_white_at_every_depth(tmp_path, depth):
    values = np.random.default_rng(4).integers(0, min(2**depth, 4), (HEIGHT, WIDTH))
    largest = 2**depth - 1
    # One value is the largest, so that there is no doubt about the bits of 16.
    values[0, 0] = largest
    path = write(tmp_path / "a.png", make_png(values, depth, 0, [(b"tRNS", struct.pack(">H", 1))]))
    expected = values >> 8 if depth == 16 else values * (255 // largest)
    assert np.array_equal(read_image(path), np.where(values == 1, 255, expected))


@pytest.mark.parametrize("mode", ["RGBa", "La"])
def test_premultiplied_colours_are_laid_on_white(tmp_path, mode):
    """TIFF may hold colours that are multiplied by their opacity already."""
    bands = 4 if mode == "RGBa" else 2
    alpha = noise(HEIGHT, WIDTH, seed=5) | 1
    colours = (noise(HEIGHT, WIDTH, bands - 1, seed=6) * (alpha[:, :, None] / 255)).astype(np.uint8)
    path = save(tmp_path / "a.tif", Image.fromarray(np.dstack([colours, alpha]), mode="RGBA" if bands == 4 else "LA"))
    set_tag(path, 338, 1)
    expected = colours.astype(int) + 255 - alpha[:, :, None]
    read = read_image(path).astype(int)
    assert read.ndim == (3 if bands == 4 else 2)
    assert np.abs(read.reshape(expected.shape) - expected).max() <= 3


# Depth.


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_few_bits_of_grey_reach_from_black_to_white(tmp_path, depth):
    values = np.random.default_rng(7).integers(0, 2**depth, (HEIGHT, WIDTH))
    read = read_image(write(tmp_path / "a.png", make_png(values, depth, 0)))
    assert np.array_equal(read, values * (255 // (2**depth - 1)))


@pytest.mark.parametrize("kind", ["png", "tif", "MM.tif", "pgm"])
def test_the_upper_eight_of_sixteen_bits_are_kept(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "pgm":
        write(path, b"P5\n%d %d\n65535\n" % (WIDTH, HEIGHT) + RAMP.astype(">u2").tobytes())
    elif kind == "MM.tif":
        image = Image.frombytes("I;16B", (WIDTH, HEIGHT), RAMP.astype(">u2").tobytes())
        image.save(path)
        assert path.read_bytes()[:2] == b"MM"
    else:
        save(path, RAMP)
    found = read_with_remarks(path)
    assert np.array_equal(found.pixels, RAMP >> 8)
    assert found.remarks == ()


@pytest.mark.parametrize(("bits", "white"), [(12, 4095), (8, 255)])
@pytest.mark.parametrize("kind", ["png", "tif", "pgm", "i32.tif"])
def test_sixteen_bits_of_which_fewer_are_used_are_not_read_as_black(tmp_path, bits, white, kind):
    values = (RAMP >> (16 - bits)).astype(np.uint16)
    path = tmp_path / f"a.{kind}"
    if kind == "pgm":
        write(path, b"P5\n%d %d\n65535\n" % (WIDTH, HEIGHT) + values.astype(">u2").tobytes())
    else:
        save(path, values.astype(np.int32) if kind == "i32.tif" else values)
    found = read_with_remarks(path)
    assert np.array_equal(found.pixels, values >> (bits - 8))
    declared = 32 if kind == "i32.tif" else 16
    assert found.remarks == (f"{declared} bits a pixel of which {bits} are used, so that {white} is white",)


def test_twelve_bits_packed_in_a_tiff_file(tmp_path):
    values = (RAMP[:, :16] >> 4).astype(np.uint16)
    pairs = values.reshape(-1, 2).astype(int)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    tags = [(256, 3, 16), (257, 3, HEIGHT), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    tags += [(278, 3, HEIGHT), (279, 4, packed.size)]
    start = 8 + packed.size
    content = b"II*\0" + struct.pack("<L", start) + packed.astype(np.uint8).tobytes() + struct.pack("<H", len(tags))
    content += b"".join(struct.pack("<HHLL", tag, kind, 1, value) for tag, kind, value in tags) + bytes(4)
    found = read_with_remarks(write(tmp_path / "a.tif", content))
    assert np.array_equal(found.pixels, values >> 4)
    assert found.remarks == ()


def test_a_tiff_file_may_say_what_its_largest_value_is(tmp_path):
    values = (RAMP >> 6).astype(np.uint16)  # ten bits
    found = read_with_remarks(save(tmp_path / "a.tif", values, tiffinfo={281: 1023}))
    assert np.array_equal(found.pixels, values >> 2)
    assert found.remarks == ()


@pytest.mark.parametrize("largest", [15, 100, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("magic", [b"P2", b"P5"])
def test_the_largest_value_of_a_grey_map_is_white(tmp_path, largest, magic):
    values = np.random.default_rng(8).integers(0, largest + 1, (HEIGHT, WIDTH))
    values[0, :2] = 0, largest
    body = " ".join(map(str, values.ravel())).encode()
    if magic == b"P5":
        body = values.astype(">u2" if largest > 255 else np.uint8).tobytes()
    found = read_with_remarks(write(tmp_path / "a.pgm", b"%s\n# a comment\n17 12 %d\n" % (magic, largest) + body))
    assert np.abs(found.pixels - values * 255 / largest).max() <= 1
    assert found.remarks == ()


@pytest.mark.parametrize("largest", [255, 4095, 65535])
def test_the_largest_value_of_a_colour_map_is_white(tmp_path, largest):
    values = np.random.default_rng(9).integers(0, largest + 1, (HEIGHT, WIDTH, 3))
    body = values.astype(">u2" if largest > 255 else np.uint8).tobytes()
    read = read_image(write(tmp_path / "a.ppm", b"P6 17 12 %d\n" % largest + body))
    assert np.abs(read - values * 255 / largest).max() <= 1


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_the_upper_eight_of_sixteen_bits_a_colour_are_kept(tmp_path, kind, channels):
    values = np.random.default_rng(10).integers(0, 65536, (HEIGHT, WIDTH, channels))
    read = read_image(write(tmp_path / "a.png", make_png(values, 16, kind)))
    upper = (values >> 8).astype(np.uint8)
    if kind == 2:
        expected = upper
    else:
        image = Image.fromarray(upper if kind == 6 else upper[:, :, [0, 0, 0, 1]], mode="RGBA")
        expected = on_white(image) if kind == 6 else on_white(image)[:, :, 0]
    assert np.array_equal(read, expected)


@pytest.mark.parametrize("kind", [2, 4, 6, "ppm"])
def test_colours_of_sixteen_bits_of_which_few_are_used_are_refused(tmp_path, kind):
    values = np.random.default_rng(11).integers(0, 4096, (HEIGHT, WIDTH, {4: 2, 6: 4}.get(kind, 3)))
    if kind in (4, 6):
        values[:, :, -1] *= 16  # opacity from clear to full
    content = b"P6 17 12 65535\n" + values.astype(">u2").tobytes() if kind == "ppm" else make_png(values, 16, kind)
    with pytest.raises(DataError, match=r"a\.image .*colours of 16 bits, of which few are used: scale them"):
        read_image(write(tmp_path / "a.image", content))


def test_black_on_a_clear_ground_is_read_at_sixteen_bits(tmp_path):
    values = np.zeros((HEIGHT, WIDTH, 4), dtype=int)
    values[3:9, 4:9, 3] = 65535
    read = read_image(write(tmp_path / "a.png", make_png(values, 16, 6)))
    assert np.array_equal(read, np.where(values[:, :, 3:] > 0, 0, 255).repeat(3, axis=2))


def test_a_dark_colour_map_is_read_if_it_says_what_is_white(tmp_path):
    values = np.random.default_rng(15).integers(0, 200, (HEIGHT, WIDTH, 3))
    read = read_image(write(tmp_path / "a.ppm", b"P6 17 12 4095\n" + values.astype(">u2").tobytes()))
    assert np.abs(read - values * 255 / 4095).max() <= 1


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_white_may_be_zero(tmp_path, kind):
    values = RAMP.astype(kind) if kind != np.float32 else (RAMP / 65535).astype(np.float32)
    path = save(tmp_path / "a.tif", values)
    set_tag(path, 262, 0)
    if kind == np.int32:
        # Pillow knows no such files.
        with pytest.raises(DataError, match="cannot be read as an image"):
            read_image(path)
    else:
        read = read_image(path)
        assert np.abs(read.astype(int) - (255 - (RAMP / 257))).max() <= 1


@pytest.mark.parametrize(("values", "says"), [([-1, 5], "-1 to 5"), ([0, 65536], "0 to 65536"), ([-9, -3], "-9 to -3")])
def test_whole_numbers_outside_sixteen_bits_are_refused(tmp_path, values, says):
    path = save(tmp_path / "a.tif", np.array([values], dtype=np.int32))
    with pytest.raises(DataError, match=f"whole numbers from {says}, and those from 0 to 65535"):
        read_image(path)


def test_signed_bytes_are_refused(tmp_path):
    path = save(tmp_path / "a.tif", GREY, tiffinfo={339: 2})
    with Image.open(path) as image:
        assert image.tag_v2[339] == (2,)
    with pytest.raises(DataError, match="signed bytes"):
        read_image(path)


def test_floats_from_black_to_white_become_bytes(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "a.tif", (GREY / 255).astype(np.float32))), GREY)
    values = np.random.default_rng(12).random((HEIGHT, WIDTH)).astype(np.float32)
    assert np.array_equal(read_image(save(tmp_path / "b.tif", values)), np.rint(255 * values))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0, 255], "floats from 0 to 255, and those from 0 to 1"),
        ([-0.5, 0.5], "floats from -0.5 to 0.5"),
        ([0, 0.01], "floats of at most 0.01, which come out nearly black"),
        ([0, 1.5], "floats from 0 to 1.5"),
        ([1e-30, 0], "floats of at most 1e-30, which come out nearly black"),
        ([np.nan, 0.5], "nan in row 0, column 0"),
        ([0.5, np.inf], "inf in row 0, column 1"),
        ([0.5, -np.inf], "-inf in row 0, column 1"),
    ],
)
def test_other_floats_are_refused(tmp_path, values, says):
    path = save(tmp_path / "a.tif", np.array([values], dtype=np.float32))
    with pytest.raises(DataError, match=f"a.tif cannot be read as an image: it holds {says}"):
        read_image(path)


# Colours.


@pytest.mark.parametrize("ending", ["png", "gif", "bmp", "tif"])
def test_a_palette_becomes_its_colours(tmp_path, ending):
    indices, palette = noise(HEIGHT, WIDTH) % 16, noise(16, 3, seed=13)
    image = Image.fromarray(indices, mode="P")
    image.putpalette(palette.ravel().tolist())
    assert np.array_equal(read_image(save(tmp_path / f"a.{ending}", image)), palette[indices])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_palette_of_few_bits_becomes_its_colours(tmp_path, bits):
    indices, palette = noise(HEIGHT, WIDTH) % 2**bits, noise(2**bits, 3, seed=14)
    content = make_png(indices, bits, 3, [(b"PLTE", palette.tobytes())])
    assert np.array_equal(read_image(write(tmp_path / "a.png", content)), palette[indices])


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_other_colour_spaces_become_rgb_as_pillow_has_it(tmp_path, mode, ending):
    image = Image.fromarray(COLOUR).convert(mode)
    if mode == "LAB" and ending == "jpg":
        mode, image = "RGB", Image.fromarray(COLOUR)
    path = save(tmp_path / f"a.{ending}", image)
    with Image.open(path) as again:
        assert np.array_equal(read_image(path), np.asarray(again.convert("RGB")))


def test_white_ink_of_cmyk_is_white_although_adobe_inverts_it(tmp_path):
    inks = np.zeros((16, 16, 4), dtype=np.uint8)
    inks[:, 8:, 3] = 255
    read = read_image(save(tmp_path / "a.jpg", Image.fromarray(inks, mode="CMYK"), quality=95))
    assert read[:, :6].min() > 250
    assert read[:, 10:].max() < 5


def test_colour_profiles_are_ignored(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(read_image(save(tmp_path / "a.png", COLOUR, icc_profile=profile)), COLOUR)


# Frames, and how pixels lie in a file.


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_read_and_that_is_said(tmp_path, ending):
    frames = [Image.fromarray(np.full((HEIGHT, WIDTH, 3), value, np.uint8)) for value in (200, 90, 20)]
    path = tmp_path / f"a.{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if ending == "webp" else {}))
    found = read_with_remarks(path)
    assert found.remarks == ("several frames or pages, of which the first is read",)
    assert (found.pixels == 200).all()
    frames[0].save(path)
    assert read_with_remarks(path).remarks == ()


def test_interlaced_and_progressive_images(tmp_path):
    # Adam7 by hand: seven passes, each a smaller image.
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b""
    for left, top, across, down in passes:
        part = COLOUR[top::down, left::across]
        rows += b"".join(b"\0" + row.tobytes() for row in part) if part.shape[1] else b""
    content = make_png(COLOUR, 8, 2, interlace=1)
    start, end = content.index(b"IDAT") - 4, content.index(b"IEND") - 4
    packed = zlib.compress(rows)
    chunk = struct.pack(">I", len(packed)) + b"IDAT" + packed + struct.pack(">I", zlib.crc32(b"IDAT" + packed))
    path = write(tmp_path / "a.png", content[:start] + chunk + content[end:])
    assert np.array_equal(read_image(path), COLOUR)

    path = save(tmp_path / "a.jpg", COLOUR, progressive=True)
    with Image.open(path) as image:
        assert image.info["progressive"]
        assert np.array_equal(read_image(path), np.asarray(image))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits", "tiff_adobe_deflate"])
def test_compressed_tiff_files(tmp_path, compression):
    assert np.array_equal(read_image(save(tmp_path / "a.tif", COLOUR, compression=compression)), COLOUR)


@pytest.mark.parametrize("big", [False, True])
def test_big_tiff_files(tmp_path, big):
    path = save(tmp_path / "a.tif", COLOUR, big_tiff=big)
    assert path.read_bytes()[2] == (43 if big else 42)
    assert np.array_equal(read_image(path), COLOUR)


def test_large_images_are_read_in_bands(tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "rgba.png": Image.fromarray(CLEAR),
        "rgb.png": Image.fromarray(COLOUR),
        "grey.png": Image.fromarray(GREY),
        "black.png": Image.fromarray(GREY > 100),
        "deep.png": Image.fromarray(RAMP),
        "float.tif": Image.fromarray((GREY / 255).astype(np.float32)),
        "palette.gif": Image.fromarray(COLOUR).quantize(9),
        "inks.tif": Image.fromarray(COLOUR).convert("CMYK"),
    }
    expected = {name: read_image(save(tmp_path / name, image, exif=exif)) for name, image in kinds.items()}
    monkeypatch.setattr("featbench.data.image_opening.BAND", 40)
    for name, pixels in expected.items():
        assert np.array_equal(read_image(tmp_path / name), pixels)


def test_a_file_is_named_by_text_or_path_and_may_begin_with_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "grey.png", GREY)
    for path in (tmp_path / "grey.png", str(tmp_path / "grey.png"), "~/grey.png", np.str_("~/grey.png")):
        assert np.array_equal(read_image(path), GREY)
    for path in (None, 3, b"grey.png", "", ["grey.png"]):
        with pytest.raises(ValueError, match=r"^path takes a path, not "):
            read_image(path)
