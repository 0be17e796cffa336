import hashlib
import io
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from featbench.data.dataset import hash_files
from featbench.registry import Registry

SHAPES = '''
from collections.abc import Sequence
from pathlib import Path
import numpy as np
import featbench
from featbench import DataError, Download, FileDataset, read_image

class Lazy(Sequence):
    def __init__(self, paths):
        self.paths = paths
    def __len__(self):
        return len(self.paths)
    def __getitem__(self, index):
        return read_image(self.paths[index])

class Shapes(FileDataset):
    """Shapes in two classes. Each is
    an image of its own size.

    And more."""
    name = "shapes"
    source = "Somebody 2020, On shapes"
    licence = "CC0"
    homepage = "http://shapes"
    content = "CONTENT"
    downloads = (
        Download("URL/images.zip", "shapes/images.zip", "ARCHIVE", unpack="shapes"),
        Download("URL/names.txt", "shapes/names.txt", "NAMES"),
    )
    def files(self, data_dir):
        root = Path("." if data_dir is None else data_dir) / "shapes"
        if data_dir is None or not (root / "names.txt").is_file():
            raise DataError(f"shapes: there is no {root / 'names.txt'}: featbench data fetch shapes")
        return [root / "names.txt", *sorted(root.glob("inner/*.png"))]
    def load(self, data_dir):
        names, *images = self.files(data_dir)
        labels = np.arange(len(images)) % 2
        return featbench.Images(Lazy(images), labels, tuple(names.read_text().split()), labels == 1)
    def remarks(self, data_dir):
        return ["a remark"]

class Homeless(Shapes):
    """Comes from nowhere."""
    name = "homeless"
    downloads = ()

@featbench.hookimpl
def featbench_datasets():
    return [Shapes(), Homeless()]
'''

NAMES = b"round square"


def png(side, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, 9), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = {f"{number}.png": png(5 + number, number) for number in range(4)}


def published():
    """Return the archive as it is published: a tar.gz in a zip."""
    inner, outer = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for name, content in IMAGES.items():
            info = tarfile.TarInfo(f"inner/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("images.tar.gz", inner.getvalue())
        archive.writestr("__MACOSX/._images.tar.gz", b"\0\5\x16\7")
    return outer.getvalue()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path)
        self.send_response(200 if content is not None else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """Where the data set of these tests is published; `files` is what it serves."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.asked = {"/images.zip": published(), "/names.txt": NAMES}, []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """Where data sets would be; FEATBENCH_DATA is not set."""
    monkeypatch.delenv("FEATBENCH_DATA", raising=False)
    return tmp_path / "data"


@pytest.fixture
def fingerprint(tmp_path):
    """What a sound copy has."""
    folder = tmp_path / "sound"
    folder.mkdir()
    contents = {"names.txt": NAMES, **IMAGES}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return hash_files([folder / name for name in contents])


@pytest.fixture
def shapes(write_plugin, server, fingerprint):
    source = SHAPES.replace("URL", f"http://127.0.0.1:{server.server_port}").replace("CONTENT", fingerprint)
    source = source.replace("ARCHIVE", f"sha256:{hashlib.sha256(server.files['/images.zip']).hexdigest()}")
    return write_plugin("shapes", source.replace("NAMES", f"md5:{hashlib.md5(NAMES).hexdigest()}"))


@pytest.fixture
def data(run, shapes, data_dir):
    """Call `featbench data` with the plugin and the folder of data sets."""
    return lambda *words: run("data", *words, "--plugin", shapes, "--data-dir", data_dir)


@pytest.fixture
def here(data, server):
    """Fetch the data set."""
    assert data("fetch", "shapes").code == 0
    server.asked.clear()


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


# list


def test_every_data_set_is_listed_with_a_sentence(run, data_dir):
    ran = run("data", "list")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[0] for line in ran.out.splitlines()] == Registry().names("datasets")
    assert "digits " in ran.out


def test_what_is_here_is_listed_as_here(data, data_dir):
    def state():
        (line,) = [line for line in data("list").out.splitlines() if line.startswith("shapes")]
        return line.split(maxsplit=1)[1]

    assert state() == "not here  Shapes in two classes."
    data("fetch", "shapes")
    assert state() == "here      Shapes in two classes."
    (data_dir / "shapes/names.txt").unlink()
    assert state().startswith("not here")


def test_featbench_data_names_the_folder(run, shapes, data_dir, here, monkeypatch):
    monkeypatch.setenv("FEATBENCH_DATA", str(data_dir))
    assert "shapes              here " in run("data", "list", "--plugin", shapes).out
    assert run("data", "verify", "shapes", "--plugin", shapes).code == 0


def test_nothing_makes_a_store(data, here, home):
    for words in (["list"], ["info", "shapes"], ["verify", "shapes"]):
        data(*words)
    assert not home.exists()


# info


def test_a_data_set_that_is_not_here_is_described(data, data_dir):
    ran = data("info", "shapes")
    assert (ran.code, ran.err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in ran.out.splitlines() if not line.startswith("not here"))
    assert lines["about"] == "Shapes in two classes. Each is an image of its own size."
    assert (lines["source"], lines["licence"]) == ("Somebody 2020, On shapes", "CC0")
    assert (lines["homepage"], lines["name"]) == ("http://shapes", "shapes")
    assert "images.zip, unpacked into shapes (sha256:" in ran.out
    assert f"not here  shapes: there is no {data_dir / 'shapes/names.txt'}" in ran.out
    assert "smallest" not in lines


def test_a_data_set_that_is_here_is_described(data, data_dir, here):
    lines = [line.split(maxsplit=1) for line in data("info", "shapes").out.splitlines()]
    assert ["here", f"5 files in {data_dir / 'shapes'}, 0.0 MB"] in lines
    assert ["classes", "2: round, square"] in lines
    assert ["smallest", "round (2)"] in lines
    assert ["test", "2 of the images"] in lines
    assert ["remark", "a remark"] in lines


def test_damage_does_not_hide_what_is_known(data, data_dir, here):
    (data_dir / "shapes/names.txt").write_bytes(b"one")
    ran = data("info", "shapes")
    assert ran.code == 2
    assert "Somebody 2020" in ran.out
    assert ran.err.startswith("featbench: error: data set shapes has labels outside its 1 classes")


# verify


def test_a_sound_copy_is_verified(data, data_dir, here, fingerprint, server):
    ran = data("verify", "shapes")
    assert (ran.code, ran.err) == (0, "")
    *notes, summary = ran.out.splitlines()
    assert summary == f"shapes: 4 images, 2 classes, smallest round (2), fingerprint {fingerprint}: sound"
    names = data_dir / "shapes/names.txt"
    assert f"{names}: 12 bytes, md5:{hashlib.md5(NAMES).hexdigest()} as published" in notes
    assert "the content is that of the reference copy" in notes
    assert "images: 4, 5–8×9, grey, uint8" in notes
    assert "a remark" in notes
    assert server.asked == []


def test_every_problem_is_listed_and_the_exit_code_says_so(data, data_dir, here):
    folder = data_dir / "shapes"
    (folder / "names.txt").write_bytes(b"round square none")
    for name in ("1.png", "3.png"):
        (folder / "inner" / name).write_bytes(IMAGES[name][:40])
    ran = data("verify", "shapes")
    problems = [line for line in ran.out.splitlines() if line.startswith("problem: ")]
    assert ran.code == 1
    assert f"{folder / 'names.txt'}: 17 bytes, not the published file" in problems[0]
    assert "content differs" in problems[1]
    assert f"image 1: {folder / 'inner/1.png'} cannot be read" in problems[2]
    assert f"image 3: {folder / 'inner/3.png'} cannot be read" in problems[3]
    assert problems[4:] == ["problem: class 'none' has no images"]
    assert ran.out.splitlines()[-1] == "shapes: 5 problems"


def test_what_is_not_here_is_an_error(data):
    ran = data("verify", "shapes")
    assert (ran.code, ran.out) == (2, "")
    assert "there is no" in ran.err
    assert "featbench data fetch shapes" in ran.err


def test_the_digits_are_sound(run, data_dir):
    ran = run("data", "verify", "digits")
    assert ran.code == 0
    assert ran.out.endswith(": sound\n")
    assert "digits: 1797 images, 10 classes, smallest 8 (174)" in ran.out


# fetch


def test_a_data_set_is_fetched(data, data_dir, server):
    ran = data("fetch", "shapes")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "shapes: licence: CC0"
    assert lines[1] == "shapes: if you publish, cite: Somebody 2020, On shapes"
    assert lines[2].startswith(f"fetched {data_dir / 'shapes/images.zip'} from http://127.0.0.1")
    assert lines[3] == f"extracted 4 files into {data_dir / 'shapes'}"
    assert lines[-1] == "now check it: featbench data verify shapes"
    images = {f"shapes/inner/{name}": content for name, content in IMAGES.items()}
    assert tree(data_dir) == {"shapes/images.zip": server.files["/images.zip"], "shapes/names.txt": NAMES, **images}
    assert server.asked == ["/images.zip", "/names.txt"]


def test_what_is_here_is_not_fetched_again(data, data_dir, here, server):
    before = tree(data_dir)
    ran = data("fetch", "shapes")
    assert (ran.code, server.asked) == (0, [])
    assert ran.out.count("is here already") == 2
    assert tree(data_dir) == before


def test_what_is_damaged_is_mended(data, data_dir, here, server):
    before = tree(data_dir)
    (data_dir / "shapes/names.txt").write_bytes(b"wrong")
    (data_dir / "shapes/inner/1.png").unlink()
    ran = data("fetch", "shapes")
    assert ran.code == 0
    assert f"featbench: {data_dir / 'shapes/names.txt'} is not the file that was published" in ran.err
    assert (server.asked, tree(data_dir)) == (["/names.txt"], before)


def test_an_image_that_was_changed_is_not_replaced(data, data_dir, here):
    changed = data_dir / "shapes/inner/1.png"
    changed.write_bytes(b"mine")
    ran = data("fetch", "shapes")
    assert ran.code == 2
    assert f"{changed} would be replaced" in ran.err
    assert changed.read_bytes() == b"mine"


def test_a_file_that_is_gone_is_an_error(data, data_dir, server):
    del server.files["/names.txt"]
    ran = data("fetch", "shapes")
    assert ran.code == 2
    assert "names.txt cannot be downloaded: the server answers 404" in ran.err
    assert f"by hand to {data_dir / 'shapes/names.txt'}" in ran.err
    assert ran.err.count("\n") == 1


def test_another_file_than_was_published_is_an_error(data, data_dir, server):
    server.files["/images.zip"] = b"another"
    ran = data("fetch", "shapes")
    assert ran.code == 2
    assert "do not have the checksum sha256:" in ran.err
    assert tree(data_dir) == {}


def test_a_copy_that_is_not_found_after_all_is_an_error(data, shapes):
    shapes.write_text(shapes.read_text().replace('"shapes/names.txt"', '"elsewhere/names.txt"'))
    ran = data("fetch", "shapes")
    assert ran.code == 2
    assert "there is no" in ran.err
    assert "now check it" not in ran.out


def test_fetching_needs_a_folder(run, shapes, data_dir, server):
    ran = run("data", "fetch", "shapes", "--plugin", shapes)
    assert (ran.code, server.asked) == (2, [])
    assert "FEATBENCH_DATA or --data-dir" in ran.err


def test_a_set_without_downloads_says_where_it_comes_from(data):
    ran = data("fetch", "homeless")
    assert ran.code == 2
    assert "homeless" in ran.err
    assert "http://shapes" in ran.err


@pytest.mark.parametrize("name", ["fetch", "verify", "info"])
def test_an_unknown_name_is_refused(data, name):
    ran = data(name, "shape")
    assert (ran.code, ran.out) == (2, "")
    assert "did you mean 'shapes'?" in ran.err


@pytest.mark.parametrize("words", [[], ["verify"], ["fetch"], ["info"], ["remove", "shapes"], ["list", "shapes"]])
def test_a_request_that_is_incomplete_is_refused(run, words):
    ran = run("data", *words)
    assert (ran.code, ran.out) == (2, "")
    assert "usage: featbench data" in ran.err


def test_a_broken_plugin_is_reported(run, write_plugin, data_dir):
    broken = write_plugin("broken", "def f(:")
    ran = run("data", "list", "--plugin", broken)
    assert ran.code == 0
    assert f"plugin broken ({broken}) could not be loaded" in ran.err
    assert run("data", "list", "--plugin", broken, "--strict").code == 2


def test_progress_is_shown_on_a_terminal(data, here, monkeypatch):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda _: True, raising=False)
    ran = data("verify", "shapes")
    assert "reading images" in ran.err
    assert ran.out.splitlines()[-1].endswith(": sound")
