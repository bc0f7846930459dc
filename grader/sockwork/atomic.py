"""Files that exist whole or not at all, even when the writer is killed at any moment."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Network and older overlay file systems know no nameless files (open(2), O_TMPFILE).
_NO_TMPFILE = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}


@contextlib.contextmanager
def whole_file(path: Path, mode: int = 0o644) -> Iterator[int]:
    """Yields a descriptor to write to; `path` appears (or is replaced) when the block ends well.

    The content grows in a nameless file, so that a kill leaves nothing behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        with _named(path, mode) as descriptor:
            yield descriptor
        return
    with _closing(descriptor):
        yield descriptor
        os.fchmod(descriptor, mode)  # whatever the umask says
        _give_name(descriptor, path)


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Puts `content` into `path`: readers see the old file or the new one, never a part."""
    with whole_file(path, mode) as descriptor:
        with open(descriptor, "wb", closefd=False) as stream:
            stream.write(content)


def _give_name(descriptor: int, path: Path) -> None:
    """link(2) cannot replace a file and rename(2) cannot name one: it takes both."""
    name = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with _closing(folder):
        # With a folder's descriptor Python calls linkat(AT_SYMLINK_FOLLOW), which /proc needs.
        os.link(f"/proc/self/fd/{descriptor}", name.name, dst_dir_fd=folder, src_dir_fd=folder)
        os.rename(name.name, path.name, src_dir_fd=folder, dst_dir_fd=folder)


@contextlib.contextmanager
def _named(path: Path, mode: int) -> Iterator[int]:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with _closing(descriptor):
            yield descriptor
            os.fchmod(descriptor, mode)
        os.rename(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)
