"""Microsoft Olive's commands, each in a process of its own: what counts is whether a model came out.

Olive ends with exit code 0 after a pass that failed, so its exit code says little.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from slmops_lab.settings import CourseError


def olive(*arguments, makes, folder):
    """Run `olive ARGUMENTS` in a folder; returns the path of what it makes there.

    makes: a file, relative to `folder`, that a success leaves behind; what an earlier run left in its place
    is removed first. The log goes to olive.log. Raises CourseError, with the last complaint in the
    log, where it is not there.
    """
    folder, log, made = Path(folder), Path(folder) / "olive.log", Path(folder) / makes
    folder.mkdir(parents=True, exist_ok=True)
    made.unlink(missing_ok=True)
    cache = folder / ".olive-cache"  # kept from run to run by names that leave versions out: not to be used again
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-m", "slmops_lab.olive_shim", *map(str, arguments)]
    quiet = os.environ | {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    with open(log, "w", encoding="utf-8") as file:
        done = subprocess.run(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, env=quiet)
    shutil.rmtree(cache, ignore_errors=True)
    if not made.is_file():
        raise CourseError(
            f"`olive {arguments[0]}` ended with exit code {done.returncode} and left no {makes}: "
            f"{_reason(log.read_text(encoding='utf-8', errors='replace'))} (the whole log: {log.name} in {folder.name})"
        )
    return made


def run(workflow, folder):
    """Run a whole workflow (a dict, as in a JSON file): (folder of the model it made, its metrics).

    metrics: {name: value}, of the evaluators in the workflow. Raises CourseError as `olive` does.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {**workflow, "output_dir": "out", "cache_dir": ".olive-cache"}
    (folder / "workflow.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    made = olive("run", "--config", "workflow.json", makes="out/model.onnx", folder=folder)
    told = made.with_name("metrics.json")
    metrics = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
    return made.parent, {name: one["value"] for name, one in metrics.items()}


def _reason(log):
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
    telling = [line for line in lines if "error:" in line.lower() or "No output model" in line]
    return (raised or telling or lines or ["it said nothing"])[-1][-300:]
