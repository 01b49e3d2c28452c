"""The process in which `course.grading` lets one answer run: python -m slmops_lab.course.stand_ins ASKED TOLD."""

import importlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import psutil


def main(asked, told):
    """Judge the answer in the file `asked`; what came out goes to the file `told`."""
    job = json.loads(Path(asked).read_text(encoding="utf-8"))
    chapter = importlib.import_module(f"slmops_lab.course.stand_ins.chapter_{job['chapter']}").CHAPTER
    chapter.cells  # noqa: B018  read before an answer may change anything
    _limit(job["limits"])
    Path(asked).with_name("begun").touch()  # from here on the clock runs
    try:
        passed, said = chapter.judge(job["name"], job["answer"])
        result = "right" if passed else "not yet"
    except NameError as error:
        result, said = "not scored", f"It uses what only the whole chapter has ({error}): run the notebook."
    except SyntaxError as error:
        result, said = "not yet", f"The answer is no Python: {error.msg}, line {error.lineno}."
    except MemoryError:
        result, said = "stopped", f"It needed more than {job['limits']['megabytes']:,} MB of memory."
    except BaseException as error:  # whatever an answer raises, SystemExit included
        result, said = "not yet", f"The answer ends with {type(error).__name__}: {str(error)[:200]}"
    Path(told).write_text(json.dumps({"result": result, "said": said}), encoding="utf-8")


def _limit(limits):
    if not sys.platform.startswith("linux"):
        return
    import resource

    most = int(limits["megabytes"] * 1e6)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    size = int(limits["output_megabytes"] * 2e6)  # of any file: the watcher sees smaller ones in time
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if user := os.geteuid():  # the system counts the threads of everything that this user runs, and none of root's
        threads = 0
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                threads += process.num_threads() if process.uids().effective == user else 0
        resource.setrlimit(resource.RLIMIT_NPROC, (threads + limits["processes"],) * 2)


main(*sys.argv[1:])
