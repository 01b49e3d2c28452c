"""Files written whole or not at all, and hashes of them."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import psutil

from slmops_lab.errors import CourseError

# What the operating system says when a place cannot take the file, whoever wrote.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def atomic_folder(target):
    """Yield an empty folder beside `target`; it takes target's place when the block ends well.

    A killed or failed block leaves the old target as it was. Raises CourseError where the disk is
    full or the place cannot be written.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        prefix = f".{target.name}-{os.getpid()}-"
        draft = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    except OSError as error:
        raise CourseError(f"Cannot write in {target.parent}: {error.strerror}.") from error
    try:
        yield draft
        old = draft.with_name(draft.name + "-old")
        if target.exists():
            os.rename(target, old)
        os.rename(draft, target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise CourseError(
            f"Could not write {target}: {error.strerror}; nothing half-written was left behind."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def sweep(target):
    """Clear what a killed process left beside `target`; put an old version back that it had moved."""
    for left in target.parent.glob(f".{target.name}-*-*"):
        owner = left.name.removeprefix(f".{target.name}-").split("-")[0]
        if not owner.isdigit() or psutil.pid_exists(int(owner)):
            continue
        if left.name.endswith("-old") and not target.exists():
            os.rename(left, target)
        else:
            shutil.rmtree(left, ignore_errors=True)


def write_json(path, value):
    """Write `value` as JSON so that a reader sees the old file or the new one, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
    os.replace(draft, path)


def sha256_of(*paths):
    """Hex SHA-256 over the bytes of all files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
