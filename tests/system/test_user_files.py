"""Files that users name: what is there stays what it is, and only its content changes."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from featbench.system.user_files import expand_user, find_obstacle, follow_links, is_standard_output, write_through

NEW = b"new\n"


@pytest.fixture
def file(tmp_path):
    """A file that is there already, longer than what is written."""
    path = tmp_path / "file"
    path.write_bytes(b"something old\n")
    return path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Regular files.


@pytest.mark.parametrize("given", [0o600, 0o640, 0o644, 0o664, 0o755, 0o666, 0o400, 0o2640])
def test_a_file_keeps_its_permissions(file, given, tmp_path):
    file.chmod(given)
    before = file.stat().st_ino
    write_through(file, NEW)
    assert (file.read_bytes(), mode(file)) == (NEW, given)
    # Replaced as a whole: whoever reads the old one goes on with it.
    assert file.stat().st_ino != before
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("mask, expected", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_that_the_user_gives_new_files(tmp_path, mask, expected):
    before = os.umask(mask)
    try:
        write_through(tmp_path / "file", NEW)
    finally:
        os.umask(before)
    assert mode(tmp_path / "file") == expected


def test_a_file_keeps_its_owner(file, monkeypatch):
    given = []
    monkeypatch.setattr(os, "fchown", lambda descriptor, user, group: given.append((user, group)))
    owned = file.stat()
    fstat = os.fstat

    def of_another(descriptor):
        found = list(fstat(descriptor))
        found[4] += 1  # st_uid
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", of_another)
    write_through(file, NEW)
    assert given == [(owned.st_uid, owned.st_gid)]
    assert file.read_bytes() == NEW


@pytest.mark.parametrize("code", ["EPERM", "EACCES", "EBUSY", "EROFS", "EXDEV"])
def test_a_file_that_cannot_be_replaced_is_written_in_place(file, code, monkeypatch):
    # As in a folder without write permission, and where a container has mounted the file itself.
    def refuse(*arguments):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(os, "replace", refuse)
    before = file.stat().st_ino
    write_through(file, NEW)
    assert (file.read_bytes(), file.stat().st_ino) == (NEW, before)
    assert names(file.parent) == ["file"]


def test_a_full_disk_leaves_the_old_content(file, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_through(file, NEW)
    assert file.read_bytes() == b"something old\n"
    assert names(file.parent) == ["file"]


def test_the_names_of_a_file_stay_names_of_one_file(file):
    other = file.with_name("other")
    other.hardlink_to(file)
    write_through(file, NEW)
    assert other.read_bytes() == NEW
    assert other.samefile(file)


@pytest.mark.parametrize("name", [b"\xff\xfe.csv", "größe.csv".encode(), b" ", b"a\nb", b"-", b"x" * 250])
def test_a_file_may_have_any_name(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    assert find_obstacle(path) == ""
    write_through(path, NEW)
    write_through(path, NEW)
    assert os.listdir(os.fsencode(tmp_path)) == [name]  # noqa: PTH208


# Links.


def make_relative(folder):
    (folder / "sub").mkdir()
    (folder / "link").symlink_to("sub/target")
    (folder / "sub/target").write_bytes(b"something old\n")
    return folder / "sub/target"


def make_absolute(folder):
    (folder / "target").write_bytes(b"something old\n")
    (folder / "link").symlink_to(folder / "target")
    return folder / "target"


def make_chain(folder):
    (folder / "target").write_bytes(b"something old\n")
    (folder / "second").symlink_to("target")
    (folder / "first").symlink_to(folder / "second")
    (folder / "link").symlink_to("first")
    return folder / "target"


def make_dangling(folder):
    (folder / "link").symlink_to("not yet")
    return folder / "not yet"


def make_dangling_chain(folder):
    (folder / "second").symlink_to("not yet")
    (folder / "link").symlink_to("second")
    return folder / "not yet"


def make_link_in_linked_folder(folder):
    (folder / "real").mkdir()
    (folder / "real/target").write_bytes(b"something old\n")
    (folder / "linked").symlink_to("real", target_is_directory=True)
    (folder / "link").symlink_to("linked/../real/target")
    return folder / "real/target"


@pytest.mark.parametrize(
    "make",
    [make_relative, make_absolute, make_chain, make_dangling, make_dangling_chain, make_link_in_linked_folder],
    ids=lambda make: make.__name__,
)
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path, make):
    target = make(tmp_path)
    link = tmp_path / "link"
    before = link.readlink()
    assert find_obstacle(link) == ""
    write_through(link, NEW)
    assert link.is_symlink()
    assert link.readlink() == before
    assert target.read_bytes() == NEW
    assert not target.is_symlink()


def test_links_in_a_circle_are_an_error(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert find_obstacle(tmp_path / "a") == f" cannot be written: {os.strerror(errno.ELOOP)}"
    with pytest.raises(OSError, match="symbolic links"):
        write_through(tmp_path / "a", NEW)
    assert names(tmp_path) == ["a", "b"]


# Pipes, devices, descriptors.


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_and_stays(tmp_path, linked):
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "pipe"
    if linked:
        (tmp_path / "link").symlink_to("pipe")
        path = tmp_path / "link"
    assert find_obstacle(path) == ""
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_through(path, NEW)
    reader.join(10)
    assert got == [NEW]
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_a_device_is_written_and_stays(device, tmp_path):
    # Through a link: if it were replaced after all, it would be the link.
    (tmp_path / "link").symlink_to(device)
    assert find_obstacle(tmp_path / "link") == ""
    write_through(tmp_path / "link", NEW)
    assert Path(device).is_char_device()
    assert (tmp_path / "link").is_symlink()


def test_a_device_that_is_full_is_an_error():
    with pytest.raises(OSError, match="No space left"):
        write_through(Path("/dev/full"), NEW)


@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
def test_an_open_descriptor_is_written_where_it_is(tmp_path, folder):
    with (tmp_path / "file").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        path = Path(folder) / str(file.fileno())
        assert find_obstacle(path) == ""
        write_through(path, NEW)
        assert not file.closed
    assert (tmp_path / "file").read_bytes() == b"before\n" + NEW


def test_a_pipe_of_the_shell_is_written():
    # `--output >(program)` gives such a name.
    reading, writing = os.pipe()
    try:
        write_through(Path(f"/dev/fd/{writing}"), NEW)
        assert os.read(reading, 100) == NEW
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_is_known_by_its_names(path, tmp_path):
    assert is_standard_output(Path(path))
    (tmp_path / "link").symlink_to(path)
    assert is_standard_output(tmp_path / "link")


@pytest.mark.parametrize("path", ["/dev/stderr", "/dev/null", "1", "/dev/fd/2", "/dev", "stdout"])
def test_nothing_else_is_standard_output(path):
    assert not is_standard_output(Path(path))


# What cannot be written is known before anything is computed.

OBSTACLES = {
    "a folder": (lambda folder: folder, " is a folder: name a file"),
    "a link to a folder": (lambda folder: link(folder / "l", folder), " is a folder: name a file"),
    "no folder": (lambda folder: folder / "no/file", ": there is no folder "),
    "a file for a folder": (lambda folder: touch(folder / "f") / "file", ": there is no folder "),
    "a link that leads into no folder": (
        lambda folder: link(folder / "l", folder / "no/file"),
        ": there is no folder ",
    ),
    "a long name": (lambda folder: folder / ("x" * 300), " cannot be written: File name too long"),
    "a descriptor that is not open": (lambda folder: Path("/dev/fd/987"), " is not open"),
}


def link(path, target):
    path.symlink_to(target)
    return path


def touch(path):
    path.touch()
    return path


@pytest.mark.parametrize("case", OBSTACLES)
def test_what_stands_against_writing_is_named(case, tmp_path):
    make, message = OBSTACLES[case]
    assert find_obstacle(make(tmp_path)).startswith(message)


def test_permissions_are_asked_for(file, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, wanted: False)
    assert find_obstacle(file) == " cannot be written: no permission"
    assert find_obstacle(file.parent / "new") == f" cannot be written: no permission to make files in {file.parent}"


# The user's own folder.


def test_a_tilde_stands_for_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_user("~") == tmp_path
    assert expand_user("~/a/b") == tmp_path / "a/b"
    assert expand_user(Path("~/a")) == tmp_path / "a"


@pytest.mark.parametrize("path", ["a/~", "./~/a", "a~b", "~nobody-of-this-name/a", ""])
def test_no_other_tilde_does(path):
    assert expand_user(path) == Path(path)


def test_a_tilde_is_known_without_a_variable(monkeypatch):
    monkeypatch.delenv("HOME")
    assert expand_user("~").is_absolute()


def test_a_path_without_links_leads_to_itself(tmp_path):
    assert follow_links(tmp_path / "a") == tmp_path.resolve() / "a"
