import numpy as np
import pytest

from featbench.datasets.cifar import Cifar10, Cifar100
from featbench.errors import DataError

NAMES10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NAMES100 = tuple(f"kind_{number}" for number in range(100))
BATCHES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
PARTS100 = ("train.bin", "test.bin")
SETS = {
    Cifar10: ("cifar-10-batches-bin", BATCHES, "batches.meta.txt", NAMES10, 3073),
    Cifar100: ("cifar-100-binary", PARTS100, "fine_label_names.txt", NAMES100, 3074),
}
both = pytest.mark.parametrize("dataset", SETS)


def photographs(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def binary(images, *marks):
    """The bytes of a file: for each image its labels, a byte each, then its red, its green and its blue plane."""
    records = b""
    for image, *labels in zip(images, *marks, strict=True):
        records += bytes(labels) + image[:, :, 0].tobytes() + image[:, :, 1].tobytes() + image[:, :, 2].tobytes()
    return records


def part(dataset, number):
    """The images, the classes and the bytes of one file of images."""
    count = 3 + number
    images, labels = photographs(count, number), [(7 * k + number) % len(SETS[dataset][3]) for k in range(count)]
    coarse = [[19 - k for k in range(count)]] if dataset is Cifar100 else []
    return images, labels, binary(images, *coarse, labels)


def write(folder, dataset, **replaced):
    """Write the files of a data set; `replaced` gives other bytes for some of them, by the name without its ending."""
    folder.mkdir(parents=True, exist_ok=True)
    _, files, names_file, names, _ = SETS[dataset]
    contents = {file: part(dataset, number)[2] for number, file in enumerate(files)}
    contents[names_file] = "".join(f"{name}\n" for name in names).encode() + b"\n"
    for file, content in contents.items():
        (folder / file).write_bytes(replaced.get(file.split(".")[0], content))
    return folder


@both
@pytest.mark.parametrize("own_folder", [True, False])
def test_all_parts_are_read_in_order_from_the_archives_folder_or_the_data_folder(tmp_path, dataset, own_folder):
    folder, files, _, names, _ = SETS[dataset]
    write(tmp_path / folder if own_folder else tmp_path, dataset)
    images = dataset().load(tmp_path)
    parts = [part(dataset, number) for number in range(len(files))]
    assert images.pixels.dtype == np.uint8
    assert images.pixels.flags.c_contiguous
    assert np.array_equal(images.pixels, np.concatenate([pixels for pixels, _, _ in parts]))
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [label for _, labels, _ in parts for label in labels]
    assert images.classes == names
    tested = len(parts[-1][1])
    assert images.test.tolist() == (len(images.labels) - tested) * [False] + tested * [True]


@pytest.mark.parametrize("row, column, colour", [(0, 0, 0), (0, 31, 0), (31, 0, 1), (2, 17, 2)])
def test_a_value_lies_where_the_format_says(tmp_path, row, column, colour):
    image = bytearray(3074)
    image[:2] = (4, 99)
    image[2 + 1024 * colour + 32 * row + column] = 200
    write(tmp_path, Cifar100, train=bytes(image))
    images = Cifar100().load(tmp_path)
    assert images.labels[0] == 99
    assert np.argwhere(images.pixels[0]).tolist() == [[row, column, colour]]
    assert images.pixels[0, row, column, colour] == 200


def test_the_class_of_cifar100_is_the_fine_label(tmp_path):
    write(tmp_path, Cifar100, test=bytes([19, 3]) + bytes(3072))
    assert Cifar100().load(tmp_path).labels[-1] == 3


@both
@pytest.mark.parametrize("change", [-1, 1, -3072, 1000])
def test_file_that_ends_within_an_image_is_refused(tmp_path, dataset, change):
    folder, files, _, _, width = SETS[dataset]
    for number, file in enumerate(files):
        content = part(dataset, number)[2]
        content = content[:change] if change < 0 else content + bytes(change)
        write(tmp_path / folder, dataset, **{file.split(".")[0]: content})
        with pytest.raises(DataError, match=rf"{file} has {len(content)} bytes, which is not a multiple of {width}"):
            dataset().load(tmp_path)


@both
def test_empty_file_is_refused(tmp_path, dataset):
    for file in SETS[dataset][1]:
        write(tmp_path, dataset, **{file.split(".")[0]: b""})
        with pytest.raises(DataError, match=rf"{file} is empty"):
            dataset().load(tmp_path)


def test_files_of_the_other_set_are_refused(tmp_path):
    write(tmp_path, Cifar100, train=part(Cifar10, 0)[2])
    with pytest.raises(DataError, match=r"train\.bin has 9219 bytes, which is not a multiple of 3074"):
        Cifar100().load(tmp_path)


@pytest.mark.parametrize(
    ("dataset", "file", "position", "label", "message"),
    [
        (Cifar10, "data_batch_4.bin", 2 * 3073, 10, "the label 10; labels are 0 to 9"),
        (Cifar10, "test_batch.bin", 0, 255, "the label 255; labels are 0 to 9"),
        (Cifar100, "train.bin", 3074, 20, "the label 20; labels are 0 to 19"),
        (Cifar100, "test.bin", 3074 + 1, 100, "the label 100; labels are 0 to 99"),
    ],
)
def test_label_outside_the_classes_is_refused(tmp_path, dataset, file, position, label, message):
    content = bytearray(part(dataset, SETS[dataset][1].index(file))[2])
    content[position] = label
    write(tmp_path, dataset, **{file.split(".")[0]: bytes(content)})
    with pytest.raises(DataError, match=f"{file} holds {message}"):
        dataset().load(tmp_path)


@both
def test_names_that_are_too_few_are_refused(tmp_path, dataset):
    file = SETS[dataset][2]
    names = "\n".join(SETS[dataset][3][:-1]).encode()
    write(tmp_path, dataset, **{file.split(".")[0]: names})
    with pytest.raises(DataError, match=f"{file} holds {len(SETS[dataset][3]) - 1} names"):
        dataset().load(tmp_path)


@both
def test_missing_file_is_named(tmp_path, dataset):
    folder, files, names, _, _ = SETS[dataset]
    for file in (*files, names):
        (write(tmp_path / folder, dataset) / file).unlink()
        for call in (dataset().load, dataset().fingerprint):
            with pytest.raises(DataError, match=f"no {file} in {tmp_path / folder}, .* or {tmp_path}, in no"):
                call(tmp_path)


@both
def test_fingerprint_changes_with_any_of_the_files(tmp_path, dataset):
    _, files, names, _, _ = SETS[dataset]
    prints = {dataset().fingerprint(write(tmp_path, dataset)), dataset().fingerprint(write(tmp_path, dataset))}
    assert len(prints) == 1
    for file in (*files, names):
        prints.add(dataset().fingerprint(write(tmp_path, dataset, **{file.split(".")[0]: b"x"})))
    assert len(prints) == 2 + len(files)


@both
def test_real_files_are_those_of_the_data_sets_page(dataset, real_files):
    images = dataset().load(real_files(dataset()))
    count = len(SETS[dataset][3])
    assert images.pixels.shape == (60_000, 32, 32, 3)
    assert images.test.tolist() == 50_000 * [False] + 10_000 * [True]
    assert np.bincount(images.labels[:50_000]).tolist() == count * [50_000 // count]
    assert np.bincount(images.labels[50_000:]).tolist() == count * [10_000 // count]
    assert dataset is Cifar100 or images.classes == NAMES10


@both
@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("below", [".", "{name}"])
def test_another_version_is_named_and_never_opened(tmp_path, monkeypatch, dataset, version, below):
    folder = tmp_path / below.format(name=dataset.name) / dataset.others[version]
    folder.mkdir(parents=True)
    (folder / "data_batch_1").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    monkeypatch.setattr("pickle.loads", None)
    with pytest.raises(DataError, match=f"{folder} is another version: .* the binary one, and never unpickles"):
        dataset().load(tmp_path)


@both
@pytest.mark.parametrize("below", ["{name}/{folder}", "{name}", "{folder}"])
def test_the_files_may_lie_in_folders_of_the_sets_name(tmp_path, dataset, below):
    write(tmp_path / below.format(name=dataset.name, folder=SETS[dataset][0]), dataset)
    assert dataset().load(tmp_path).test.sum() == len(part(dataset, len(SETS[dataset][1]) - 1)[1])
