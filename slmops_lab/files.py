"""Files and folders written whole or not at all, and hashes of them.

Knows nothing of what is written. A draft lies beside its target, as `.NAME.12345678.draft`, and the process that
writes it holds a lock on `.NAME.12345678.lock`, which the system takes back when the process ends, however it ends.
So whoever comes next can tell a dead draft from one at work. A write costs one lock file, gone afterwards.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from slmops_lab.errors import CourseError

# What the operating system says when a place cannot take the file, whoever wrote.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}


@contextmanager
def atomic_folder(target):
    """Yield an empty folder beside `target`; it takes target's place when the block ends well.

    A killed or failed block leaves the old target as it was. Of two that write the same target at once, the last one
    to end wins. Between two renames there is, for an instant, no target; a process killed there leaves the old one to
    the next `sweep`. Modes follow the umask. Raises CourseError where the disk is full or the place cannot be written.
    """
    target = Path(target).resolve()  # a link stays one
    with _draft(target) as draft:
        yield draft
        old = draft.with_suffix(".old")
        while True:
            try:
                os.rename(draft, target)
                return
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
            shutil.rmtree(old, ignore_errors=True)  # another writer was faster: of the round before
            with suppress(FileNotFoundError):
                os.rename(target, old)


@contextmanager
def _draft(target):
    """Yield a new folder beside `target`, locked until the block ends; what the block leaves of it is cleared."""
    from filelock import FileLock  # the endpoint's image has none, and writes nothing

    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.draft")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        with FileLock(draft.with_suffix(".lock")):
            try:
                draft.mkdir()
                yield draft
            finally:
                _clear(target, draft)
    except Exception as error:
        if not (reason := _refusal(error, target.parent)):
            raise
        raise CourseError(f"Could not write {target}: {reason}; nothing half-written was left behind.") from error


def _refusal(error, folder):
    """Why a place could not take a file, as the system puts it; None where an error has another reason."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        path = str(error.filename or folder)
        return error.strerror + ("" if path.startswith(str(folder)) else f" ({path})")
    full = os.strerror(errno.ENOSPC)  # libraries that write in another language put it into words of their own
    return full if full in str(error) and not isinstance(error, CourseError) else None


def _clear(target, draft):
    """Under a draft's lock: an old version that it had moved comes back where nothing took its place; the rest goes."""
    old = draft.with_suffix(".old")
    if old.exists() and not target.exists():
        os.rename(old, target)
    for left in (draft, old):
        shutil.rmtree(left, ignore_errors=True)
    draft.with_suffix(".lock").unlink(missing_ok=True)


def sweep(target):
    """Clear what killed processes left beside `target`, and put an old version back that one of them had moved.

    Drafts of living processes stay, and so do those of other targets, such as `student-6-layers` beside `student`.
    """
    from filelock import FileLock

    target = Path(target).resolve()
    ours = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.lock")
    for lock in [path for path in target.parent.glob(".*.lock") if ours.fullmatch(path.name)]:
        with suppress(OSError), FileLock(lock, timeout=0):  # also Timeout: its process lives
            _clear(target, lock.with_suffix(".draft"))


def write_json(path, value):
    """Write `value` as JSON so that a reader sees the old file or the new one, never a part.

    Raises CourseError as `atomic_folder` does, and TypeError where the value is none that JSON knows.
    """
    path = Path(path).resolve()
    with _draft(path) as draft:
        (draft / path.name).write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(draft / path.name, path)


def sha256_of(*paths):
    """Hex SHA-256. Of one file: of its bytes, as `sha256sum` prints it.

    Of several: of their hashes and names below the folder that they share, so a line cannot move from one file to
    the next unseen; their order does not matter.
    """
    if len(paths) == 1:
        with open(paths[0], "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = [Path(path).absolute() for path in paths]
    common = os.path.commonpath([path.parent for path in whole])
    listed = sorted(f"{path.relative_to(common).as_posix()}\0{sha256_of(path)}\0" for path in whole)
    return hashlib.sha256(os.fsencode("".join(listed))).hexdigest()
