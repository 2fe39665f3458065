"""Files: their hash, writing them whole or not at all, locking them, and never destroying anything in silence."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from leafiqa.errors import InputError, OutputError

StrPath = str | os.PathLike[str]

# First bytes of pictures; ISO media files (AVIF, HEIC) have theirs from the fifth byte on.
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP", b"P5", b"P6")


def sha256_of(path: StrPath) -> str:
    """Return the sha256 of a regular file as 64 hex digits.

    Raises:
        OSError: the file cannot be read, or is no regular file (a pipe would be waited for without end).
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(2, "no regular file", os.fspath(path))
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_if_readable(path: StrPath) -> str | None:
    """Return the sha256 of a file, None where it is missing, no regular file or cannot be read."""
    try:
        return sha256_of(path)
    except (OSError, ValueError):
        return None


def write_whole(path: StrPath, content: bytes | str) -> None:
    """Write a file so that a kill at any moment leaves either the old content or the new one.

    Args:
        path: the file; a link to a file stays a link, and a file's mode stays as it is. A device or pipe is written
            to as it is.
        content: bytes, or text written as UTF-8 (file names that are not UTF-8 keep their bytes).
    """
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    place = Path(os.path.realpath(path))
    if place.exists() and not place.is_file():  # a device or a pipe
        with open(path, "wb") as file:
            file.write(data)
        return
    handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=place.name, suffix=".tmp")
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            shutil.copymode(place, temporary)
        else:
            os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _umask() -> int:
    # Reading the umask means setting it, which other threads would notice; /proc tells it without.
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("Umask:")).split()[1], 8)
    return 0o022


@contextlib.contextmanager
def locked(path: StrPath) -> Iterator[None]:
    """Hold a file while a block runs; a process that dies lets go of it.

    The lock is on `PATH.lock` in the temporary folder, so that nothing is left beside the user's files. Where the
    system knows no locks, nothing is held.

    Raises:
        OutputError: another process, or another thread, is writing to it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]
    folder = Path(tempfile.gettempdir()) / f"leafiqa-locks-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    try:
        file = open(folder / name, "ab")
    except OSError:  # nowhere to put a lock
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another process is writing to {path}: wait for it, or stop it") from error
        except OSError:  # a file system without locks
            pass
        yield


def check_output(
    path: StrPath,
    *,
    inputs: Iterable[StrPath] = (),
    overwrite: bool | None = False,
    is_ours: Callable[[bytes], bool] = lambda head: True,
) -> None:
    """Refuse a place for a result where something would be lost, or that cannot be written, before work begins.

    Devices and pipes such as `/dev/stdout` are written to as they are.

    Args:
        path: where the result is to go.
        inputs: files that are read; the result never goes onto one of them.
        overwrite: whether an existing file may be replaced; None where it never may.
        is_ours: tells by a file's first 4,096 bytes whether leafiqa wrote it; only such a file is replaced.

    Raises:
        OutputError: the result would replace an input, a picture, or a file that is not to be replaced; or there is
            no such folder.
    """
    place = os.fspath(path)
    folder = os.path.dirname(os.path.abspath(place))
    if os.path.isdir(place):
        raise OutputError(f"output {place} is a folder; name a file in it")
    if not os.path.isdir(folder):
        raise OutputError(f"cannot write {place}: there is no folder {folder}; make it first")
    if not os.path.lexists(place):
        if not os.access(folder, os.W_OK):
            raise OutputError(f"cannot write {place}: the folder {folder} is not writable")
        return
    if os.path.exists(place) and not stat.S_ISREG(os.stat(place).st_mode):
        return
    if not os.path.exists(place):
        return  # a dangling link: its target is made
    if any(_same(place, given) for given in inputs):
        raise OutputError(f"output {place} is one of the files that are read; name another file")
    with open(place, "rb") as file:
        head = file.read(4096)
    if head.startswith(_PICTURES) or head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        raise OutputError(f"output {place} is a picture; name another file")
    if not overwrite:
        allow = "" if overwrite is None else ", or allow it with overwrite=True (--overwrite on the command line)"
        raise OutputError(f"output {place} exists already; name another file{allow}")
    if head and not is_ours(head):
        raise OutputError(f"output {place} was not written by leafiqa, so it is not replaced; name another file")


def _same(first: StrPath, second: StrPath) -> bool:
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):
        return False


def as_path(value: object, name: str) -> Path:
    """Return a path out of what a caller passed.

    Raises:
        InputError: it is neither text nor a path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{name} must be a path, str or os.PathLike, got {value!r}")
    return Path(value)


def printable(text: str) -> str:
    """Return text for one line of a terminal: line breaks and control characters are escaped, so nothing is forged."""
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else repr(c)[1:-1] for c in text)


def relative_name(path: StrPath, folder: StrPath) -> str:
    """Return a file's name as it is found from a folder, absolute where there is no way (another drive)."""
    try:
        return os.path.relpath(os.path.abspath(path), os.path.abspath(folder))
    except ValueError:
        return os.path.abspath(path)
