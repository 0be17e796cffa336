"""What is fuzzed beside images: binary data sets, archives and the store."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from fuzz_mutations import mutate, mutate_gzip, mutate_mat
from fuzz_targets import RANDOM, Content, Target
from numpy.typing import NDArray
from scipy.io import loadmat, savemat

from featbench.data.archive import extract
from featbench.data.dataset import Dataset
from featbench.datasets.cifar import Cifar10
from featbench.datasets.mnist import Mnist
from featbench.datasets.norb import CHECKSUMS, SmallNorb
from featbench.datasets.stl10 import Stl10
from featbench.datasets.svhn import Svhn
from featbench.store.store import Store

NAMES = tuple(f"class {number}" for number in range(10))


def draw_bytes(*shape: int) -> NDArray[np.uint8]:
    """Return bytes of which runs are equal, so that they can be compressed."""
    return np.repeat(RANDOM.integers(0, 256, (*shape[:-1], -(-shape[-1] // 4)), dtype=np.uint8), 4, -1)[
        ..., : shape[-1]
    ]


def count_up(count: int) -> NDArray[np.uint8]:
    """Return labels from 0 to 9."""
    return (np.arange(count) % 10).astype(np.uint8)


def load(dataset: Dataset) -> Callable[[Path], Content]:
    """Return a function that loads a data set from a folder."""

    def read(folder: Path) -> Content:
        images = dataset.load(folder)
        return [np.asarray(images.pixels), np.asarray(images.labels)]

    return read


def put_first(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files with one of them first: that is the one to damage."""
    return {name: files[name], **files}


def unpack(path: Path) -> bytes:
    """Return the bytes of a file, or of what it holds compressed."""
    raw = path.read_bytes()
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


def list_idx_targets() -> Iterator[Target]:
    """Yield MNIST's images, plain and gz, and its labels."""
    images, labels = draw_bytes(12, 6, 5), count_up(12)
    contents = {
        "images-idx3-ubyte": struct.pack(">4I", 0x803, *images.shape) + images.tobytes(),
        "labels-idx1-ubyte": struct.pack(">2I", 0x801, len(labels)) + labels.tobytes(),
    }
    plain = {f"{part}-{name}": raw for part in ("train", "t10k") for name, raw in contents.items()}
    packed = {f"{name}.gz": gzip.compress(raw, mtime=0) for name, raw in plain.items()}

    def decode(path: Path) -> Content:
        raw = unpack(path)
        found = np.frombuffer(raw[4 + 4 * raw[3] :], np.uint8).reshape(struct.unpack_from(f">{raw[3]}I", raw, 4))
        pixels, marks = (found, labels) if "images" in path.name else (images, found)
        return [np.concatenate([pixels, images]), np.concatenate([marks, labels]).astype(np.int64)]

    both = (mutate, mutate_gzip)
    yield Target("MNIST images", put_first("train-images-idx3-ubyte", plain), load(Mnist()), decode)
    yield Target("MNIST labels", put_first("train-labels-idx1-ubyte", plain), load(Mnist()), decode)
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        yield Target(f"MNIST {name[6:12]} gz", put_first(name, packed), load(Mnist()), decode, True, both)


def list_norb_targets() -> Iterator[Target]:
    """Yield small NORB's images, categories and poses, and the images gz."""
    pairs, categories = draw_bytes(3, 2, 96, 96), np.arange(3, dtype="<i4")
    poses = np.array([[1, 2, 4, 5], [9, 8, 34, 0], [0, 0, 0, 3]], dtype="<i4")
    kinds = {
        "dat": struct.pack("<6I", 0x1E3D4C55, 4, *pairs.shape) + pairs.tobytes(),
        "cat": struct.pack("<5I", 0x1E3D4C54, 1, 3, 1, 1) + categories.tobytes(),
        "info": struct.pack("<5I", 0x1E3D4C54, 2, 3, 4, 1) + poses.tobytes(),
    }
    plain = {f"smallnorb-{stem}.mat": kinds[stem.rsplit("-", 1)[1]] for stem in CHECKSUMS}
    first = list(plain)

    def decode(path: Path) -> Content:
        raw = unpack(path)
        magic, sides = struct.unpack_from("<2I", raw)
        shape = struct.unpack_from(f"<{sides}I", raw, 8)
        found = np.frombuffer(raw[8 + 4 * max(3, sides) :], "u1" if magic == 0x1E3D4C55 else "<i4").reshape(shape)
        left = found[:, 0] if "dat" in path.name else pairs[:, 0]
        marks = found if "cat" in path.name else categories
        return [np.concatenate([left, pairs[:, 0]]), np.concatenate([marks, categories]).astype(np.int64)]

    for name, kind in zip(first[:3], kinds, strict=True):
        yield Target(f"NORB {kind}", put_first(name, plain), load(SmallNorb()), decode)
    packed = {f"{name}.gz": gzip.compress(raw, mtime=0) for name, raw in plain.items()}
    files = put_first(f"{first[0]}.gz", packed)
    yield Target("NORB dat gz", files, load(SmallNorb()), decode, True, (mutate, mutate_gzip))


def list_svhn_targets() -> Iterator[Target]:
    """Yield SVHN's MATLAB files, deflated and not."""
    x, y = draw_bytes(32, 32, 3, 4), np.array([[1], [10], [3], [4]], dtype=np.uint8)

    def save(*, deflated: bool) -> bytes:
        buffer = io.BytesIO()
        savemat(buffer, {"X": x, "y": y}, do_compression=deflated)
        return buffer.getvalue()

    def decode(path: Path) -> Content:
        found = loadmat(path, variable_names=["X", "y"])
        pixels = np.concatenate([part.transpose(3, 0, 1, 2) for part in (found["X"], x)])
        return [pixels, np.concatenate([found["y"], y])[:, 0].astype(np.int64) % 10]

    for deflated in (True, False):
        files = {f"{part}_32x32.mat": save(deflated=deflated) for part in ("train", "test")}
        mutations = (mutate, mutate_mat) if deflated else (mutate,)
        name = "SVHN deflated" if deflated else "SVHN plain"
        yield Target(name, files, load(Svhn()), decode, deflated, mutations)


def list_record_targets() -> Iterator[Target]:
    """Yield CIFAR-10's and STL-10's images."""
    planes, labels = draw_bytes(4, 3, 32, 32), count_up(4)
    records = np.concatenate([labels[:, None], planes.reshape(4, -1)], axis=1)
    batches = {name: records.tobytes() for name in Cifar10.parts}

    def decode_cifar(path: Path) -> Content:
        found = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 3073)
        rows = np.concatenate([found, *[records] * 5])
        return [rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0].astype(np.int64)]

    names = "\n".join(NAMES).encode()
    yield Target("CIFAR-10", {**batches, Cifar10.names: names}, load(Cifar10()), decode_cifar)
    large, marks = draw_bytes(2, 3, 96, 96), np.array([1, 10], dtype=np.uint8)
    files = {f"{part}_X.bin": large.tobytes() for part in ("train", "test")}
    files |= {f"{part}_y.bin": marks.tobytes() for part in ("train", "test")}

    def decode_stl(path: Path) -> Content:
        found = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 3, 96, 96)
        pixels = np.concatenate([found, large]).transpose(0, 3, 2, 1)
        return [pixels, np.concatenate([marks, marks]).astype(np.int64) - 1]

    yield Target("STL-10", {**files, "class_names.txt": names}, load(Stl10()), decode_stl)


FILES = {"set/a/1.txt": b"one" * 200, "set/b/2.bin": bytes(range(256)) * 3, "set/empty": b""}


def list_archive_targets() -> Iterator[Target]:
    """Yield zip, tar and tar.gz, extracted."""

    def read(folder: Path) -> Content:
        (archive,) = (path for path in folder.iterdir() if path.is_file())
        with tempfile.TemporaryDirectory() as target:
            extract(archive, Path(target) / "out")
            paths = sorted(path for path in Path(target).rglob("*") if path.is_file())
            return [(path.relative_to(Path(target) / "out").as_posix(), path.read_bytes()) for path in paths]

    def decode_zip(path: Path) -> Content:
        with zipfile.ZipFile(path) as archive:
            return sorted((info.filename, archive.read(info)) for info in archive.infolist() if not info.is_dir())

    def decode_tar(path: Path) -> Content:
        with tarfile.open(path) as archive:
            members = [info for info in archive if info.isfile()]
            return sorted((info.name, cast(IO[bytes], archive.extractfile(info)).read()) for info in members)

    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    yield Target("archive zip", {"x.zip": zipped.getvalue()}, read, decode_zip)
    yield Target("archive tar", {"x.tar": tarred.getvalue()}, read, decode_tar)
    packed = gzip.compress(tarred.getvalue(), mtime=0)
    yield Target("archive tar.gz", {"x.tar.gz": packed}, read, decode_tar, True, (mutate, mutate_gzip))


def list_store_targets() -> Iterator[Target]:
    """Yield the store's arrays, tensors and their records, which have checksums of their own."""
    key = "0" * 64

    def make(write: Callable[[Store], object]) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as home:
            write(Store(Path(home)))
            paths = (path for path in Path(home).rglob("*") if path.is_file() and path.stat().st_size)
            return {path.relative_to(home).as_posix(): path.read_bytes() for path in paths}

    def read_array(folder: Path) -> Content | None:
        found = Store(folder).read_array("features", key)
        return None if found is None else [np.array(found[0]), found[1]]

    def read_tensors(folder: Path) -> Content | None:
        found = Store(folder).read_tensors("filters", key)
        return None if found is None else [*(found[0][name] for name in sorted(found[0])), found[1]]

    values = RANDOM.standard_normal((6, 5)).astype(np.float32)
    about: dict[str, Any] = {"seconds": 1.5}
    arrays = make(lambda store: store.write_array("features", key, values, about))
    tensors = make(lambda store: store.write_tensors("filters", key, {"a": values, "b": values[:2]}, about))
    for kind, files, read in (("features", arrays, read_array), ("filters", tensors, read_tensors)):
        for name in files:
            yield Target(f"store {kind} {Path(name).suffix[1:]}", put_first(name, files), read, None, True)
