"""Microsoft Olive's commands, each in a process of its own with a time limit: what counts is whether a model came out.

Olive ends with exit code 0 after a pass that failed, so its exit code says little. Its ModelBuilder pass
(0.13.0) was written for the model builder of onnxruntime-genai before 0.15: since then the builder wants its
options parsed first, calls them by other names, and no longer has the module that the pass patches. So the
commands go through `python -m slmops_lab.deployment.olive`, which is Olive's command line with that one pass
mended; `needed` says whether that is so for what is installed, and where it is not, the mending can go.
"""

import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from slmops_lab.errors import CourseError

SECONDS = 4 * 3600  # longest time of a conversion, unless told otherwise
OLIVE_PATCHES = "onnxruntime_genai.models.quantized_model"  # what Olive 0.13.0 imports


def within(seconds, step, line, log, **how):
    """Run a command line with its output in the file `log`; returns its exit code.

    how: as of subprocess.Popen. It and the processes that it started are ended after so many seconds (None: `SECONDS`)
    and where this is interrupted. Raises CourseError, which names the step, when the time is up.
    """
    seconds = SECONDS if seconds is None else seconds
    process = psutil.Popen(line, stdout=log, stderr=subprocess.STDOUT, **how)
    try:
        return process.wait(seconds)
    except psutil.TimeoutExpired:
        raise CourseError(f"{step} took longer than {seconds:,g} s and was ended.") from None
    finally:
        with suppress(psutil.NoSuchProcess):  # it has ended by itself
            everyone = [process, *process.children(recursive=True)]
            for one in everyone:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(everyone, timeout=10)


def command(*arguments, makes, folder, seconds=None):
    """Run `olive ARGUMENTS` in a folder; returns the path of what it makes there.

    makes: a file, relative to `folder`, that a success leaves behind; what an earlier run left in its place
    is removed first. The log goes to olive.log. seconds: as of `within`. Raises CourseError, with the last
    complaint in the log, where it is not there, and when the time is up.
    """
    folder, log, made = Path(folder), Path(folder) / "olive.log", Path(folder) / makes
    folder.mkdir(parents=True, exist_ok=True)
    made.unlink(missing_ok=True)
    cache = folder / ".olive-cache"  # kept from run to run by names that leave versions out: not to be used again
    shutil.rmtree(cache, ignore_errors=True)
    line = [sys.executable, "-m", "slmops_lab.deployment.olive", *map(str, arguments)]
    quiet = os.environ | {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}
    with open(log, "w", encoding="utf-8") as file:
        ended = within(seconds, f"`olive {arguments[0]}`", line, file, cwd=folder, env=quiet)
    shutil.rmtree(cache, ignore_errors=True)
    if not made.is_file():
        raise CourseError(
            f"`olive {arguments[0]}` ended with exit code {ended} and left no {makes}: "
            f"{_reason(log.read_text(encoding='utf-8', errors='replace'))} (the whole log: {log.name} in {folder.name})"
        )
    return made


def run(workflow, folder, seconds=None):
    """Run a whole workflow (a dict, as in a JSON file): (folder of the model it made, its metrics).

    metrics: {name: value}, of the evaluators in the workflow. Raises CourseError as `command` does.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {**workflow, "output_dir": "out", "cache_dir": ".olive-cache"}
    (folder / "workflow.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    made = command("run", "--config", "workflow.json", makes="out/model.onnx", folder=folder, seconds=seconds)
    told = made.with_name("metrics.json")
    metrics = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
    return made.parent, {name: one["value"] for name, one in metrics.items()}


def _reason(log):
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line)]
    telling = [line for line in lines if "error:" in line.lower() or "No output model" in line]
    return (raised or telling or lines or ["it said nothing"])[-1][-300:]


def needed():
    """Whether the installed Olive and onnxruntime-genai do not fit together by themselves."""
    from olive.passes.onnx.model_builder import ModelBuilder

    return OLIVE_PATCHES in inspect.getsource(ModelBuilder) and importlib.util.find_spec(OLIVE_PATCHES) is None


def install():
    """Let Olive's ModelBuilder pass call today's model builder. Does nothing where that is not `needed`."""
    if not needed():
        return
    from olive.passes.onnx.model_builder import ModelBuilder
    from onnxruntime_genai.models import builder

    build = builder.create_model

    def create_model(model_name, input_path, output_dir, precision, execution_provider, cache_dir, **options):
        if "hf_details" not in options:  # as the pass calls it: not parsed yet
            precision = getattr(precision, "value", precision)
            source = "" if input_path == model_name else input_path
            pairs = [f"{name.removeprefix('int4_')}={_text(name, value)}" for name, value in options.items()]
            places = (output_dir, precision, execution_provider, cache_dir)
            options = builder.parse_extra_options(model_name, source, *places, pairs)
        return build(model_name, input_path, output_dir, precision, execution_provider, cache_dir, **options)

    builder.create_model = create_model
    ModelBuilder.maybe_patch_quant = staticmethod(lambda: None)


def _text(name, value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ("," if name.endswith("nodes_to_exclude") else "/").join(map(str, value))
    return str(value)


if __name__ == "__main__":
    install()
    from olive.cli.launcher import main

    main(sys.argv[1:])
