"""Damage done to the bytes of a file, drawn at random: what disks, networks, converters and attackers do to files."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable

import numpy as np

HEAD = 128
"""Bytes in which half of the damage is done: there formats say how large things are."""

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""What sizes, counts and offsets are replaced by."""

Random = np.random.Generator

Mutation = Callable[[bytes, Random], bytes]


def draw_place(data: bytes, random: Random) -> int:
    """Return a position in the data, in every second case one near its start."""
    end = min(len(data), HEAD) if random.random() < 0.5 else len(data)
    return int(random.integers(0, max(1, end)))


def flip_bit(data: bytes, random: Random) -> bytes:
    """Change one bit."""
    place = draw_place(data, random)
    return data[:place] + bytes([data[place] ^ (1 << random.integers(8))]) + data[place + 1 :]


def replace_bytes(data: bytes, random: Random) -> bytes:
    """Replace up to 16 bytes by random ones, zeros or ones."""
    place, count = draw_place(data, random), int(random.integers(1, 17))
    new = (random.bytes(count), bytes(count), b"\xff" * count)[random.integers(3)]
    return data[:place] + new + data[place + count :]


def replace_number(data: bytes, random: Random) -> bytes:
    """Replace 1, 2, 4 or 8 bytes by a number on which size computations break, in either order of bytes."""
    place, width = draw_place(data, random), int(random.choice([1, 2, 4, 8]))
    number = int(random.choice(NUMBERS)) % 256**width
    return data[:place] + number.to_bytes(width, str(random.choice(["little", "big"]))) + data[place + width :]


def truncate(data: bytes, random: Random) -> bytes:
    """Cut the end off."""
    return data[: random.integers(0, len(data))]


def behead(data: bytes, random: Random) -> bytes:
    """Cut the start off."""
    return data[random.integers(1, min(64, len(data))) :]


def insert(data: bytes, random: Random) -> bytes:
    """Insert up to 64 random bytes."""
    place = draw_place(data, random)
    return data[:place] + random.bytes(int(random.integers(1, 65))) + data[place:]


def delete(data: bytes, random: Random) -> bytes:
    """Take up to 64 bytes out."""
    place = draw_place(data, random)
    return data[:place] + data[place + int(random.integers(1, 65)) :]


def repeat(data: bytes, random: Random) -> bytes:
    """Write a part twice."""
    place, count = draw_place(data, random), int(random.integers(1, 256))
    return data[: place + count] + data[place : place + count] + data[place + count :]


def append(data: bytes, random: Random) -> bytes:
    """Append random bytes, zeros or the whole file again."""
    return (
        data
        + (random.bytes(int(random.integers(1, 600))), bytes(int(random.integers(1, 600))), data)[random.integers(3)]
    )


def convert_line_ends(data: bytes, random: Random) -> bytes:
    """Do what a transfer in text mode does."""
    return data.replace(b"\n", b"\r\n") if random.random() < 0.5 else data.replace(b"\r\n", b"\n").replace(b"\r", b"")


MUTATIONS: tuple[Mutation, ...] = (
    *(flip_bit, replace_bytes, replace_number, truncate, behead, insert, delete, repeat, append, convert_line_ends),
    *(flip_bit, replace_number),
)
"""The last two again: single bits and sizes are the most telling."""


def mutate(data: bytes, random: Random) -> bytes:
    """Return damaged bytes: one mutation, in every fourth case two."""
    for _ in range(2 if random.random() < 0.25 else 1):
        if data:
            data = MUTATIONS[random.integers(len(MUTATIONS))](data, random)
    return data


def mutate_gzip(data: bytes, random: Random) -> bytes:
    """Damage what a gzip file holds, and compress that: its checksum is right again."""
    return gzip.compress(mutate(gzip.decompress(data), random), mtime=0)


def mutate_png(data: bytes, random: Random) -> bytes:
    """Damage the content of one chunk of a PNG, and give it the right length and checksum again."""
    chunks, place = [], 8
    while place < len(data):
        (size,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    chosen = random.integers(len(chunks) - 1)
    kind, content = chunks[chosen]
    # Of what is deflated, sometimes the content is damaged rather than the deflated bytes.
    if kind == b"IDAT" and random.random() < 0.5:
        chunks[chosen] = kind, zlib.compress(mutate(zlib.decompress(content), random))
    else:
        chunks[chosen] = kind, mutate(content, random)
    parts = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return data[:8] + b"".join(parts)


def mutate_mat(data: bytes, random: Random) -> bytes:
    """Damage what a deflated variable of a MATLAB file holds, and deflate it: its checksum is right again."""
    variables, place = [], 128
    while place < len(data):
        (size,) = struct.unpack_from("<I", data, place + 4)
        variables.append(zlib.decompress(data[place + 8 : place + 8 + size]))
        place += 8 + size
    chosen = random.integers(len(variables))
    variables[chosen] = mutate(variables[chosen], random)
    packed = [zlib.compress(variable) for variable in variables]
    return data[:128] + b"".join(struct.pack("<2I", 15, len(part)) + part for part in packed)
