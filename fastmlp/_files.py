"""Files that are written whole or not at all, and are on the disk when that is done."""

import contextlib
import errno
import os

from ._checks import check_path

__all__ = ["replace_file"]

# What file systems say that cannot sync a folder: there is no more to be done then.
_CANNOT_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)


def replace_file(path: str | os.PathLike[str], content: bytes, previous: str | None = None) -> None:
    """Write `content` to `path`, whole or not at all, also if the process or the power fails.

    It goes to a temporary file in the same folder, which is written to the disk before it takes the
    place of `path`; then the folder is, where the system can do that. If that does not come about,
    the temporary file is removed and `path` is what it was.

    With `previous`, for one writer that comes again and again, the file that was there is kept as
    `path` + `previous`, and the temporary file has a name that the next one takes over.
    """
    path = check_path(path)
    target = os.path.realpath(path)  # the file behind a symbolic link is replaced, not the link
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".fastmlp-{os.urandom(8).hex()}.tmp")
    if previous is not None:
        temporary = f"{target}.tmp"
    try:
        with open(temporary, "xb" if previous is None else "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and os.path.exists(target):
            _keep(target, target + previous)
        os.replace(temporary, target)
        _sync_folder(folder)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            # The same error, but about the user's file and not about the temporary one.
            raise OSError(error.errno, error.strerror, path) from error
        raise


def _keep(path: str, previous: str) -> None:
    """Give a file another name, under which there may be an older one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(previous)
    try:
        os.link(path, previous)  # under its own name it is there at any moment
    except OSError:  # a file system without links
        os.replace(path, previous)


def _sync_folder(folder: str) -> None:
    """Write to the disk which names a folder has: a file's data do not hold them."""
    if os.name == "nt":  # where a folder cannot be opened
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
