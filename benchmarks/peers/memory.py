"""What Linux says of a process's memory, and control groups that limit it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
NAME = "fastmlp-benchmark"


def status(name: str) -> int:
    """Return one of the sizes of this process, as VmHWM, its peak, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def forget_peak() -> None:
    """Let VmHWM start again from what is in use."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@contextmanager
def limited(size: int) -> Iterator[Path]:
    """Make a control group of so many bytes, pages of files included, and remove it at the end.

    A process that passes the yielded folder to `enter` lives in it to its own end, which must come
    first. Needs root; raises OSError where there are no such groups.
    """
    is_first_version = (GROUPS / "memory").exists()
    folder = GROUPS / "memory" / NAME if is_first_version else GROUPS / NAME
    folder.mkdir()
    try:
        limit = "memory.limit_in_bytes" if is_first_version else "memory.max"
        (folder / limit).write_text(str(size), encoding="ascii")
        yield folder
    finally:
        folder.rmdir()


def enter(group: Path) -> None:
    """Move this process into a group; what it had stays charged to where it was."""
    (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
