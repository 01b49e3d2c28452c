"""The way from a CSV file to a signed package, in steps: each reads folders and leaves one, whole or not at all.

A step's folder has a `step.json`: which step made it, from which inputs (by their content), with which settings and
which version of this library's code, and the hash of every file. A step whose folder says the same is not repeated; a
folder that somebody has changed is said to be. The work itself stands in the rooms below; nothing here knows in
which order steps are run (`pipeline`). Hashing costs a second per gigabyte.

Weighed against DVC, Snakemake and doit: all three decide by content as well, but bring a command, a file format and a
state folder of their own for what is one function here.
"""

import hashlib
import inspect
import json
import shutil
import time
import types
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Union, get_args, get_origin

import pydantic

from slmops_lab.errors import CourseError
from slmops_lab.files import atomic_folder, sha256_of, sweep, write_json
from slmops_lab.operations import work
from slmops_lab.settings import code_version

MADE = "step.json"
FORMAT = 1  # of `MADE`; a folder of another format is not read


@dataclass(frozen=True)
class Step:
    """A function of `work` with what it reads (kinds of folders), makes (a kind) and can be told (a pydantic model)."""

    name: str
    function: object
    needs: tuple
    may: tuple
    settings: type

    @property
    def about(self):
        """First line of the function's docstring."""
        return inspect.getdoc(self.function).splitlines()[0]


def _step(name, function):
    told = inspect.signature(function).parameters.values()
    typed = {
        p.name: (p.annotation, ... if p.default is p.empty else p.default) for p in told if p.kind is p.KEYWORD_ONLY
    }
    folders = [p for p in told if p.kind is not p.KEYWORD_ONLY and p.name != "out"]
    needs = tuple(p.name for p in folders if p.default is p.empty)
    may = tuple(p.name for p in folders if p.default is not p.empty)
    strict = pydantic.ConfigDict(extra="forbid")
    return Step(name, function, needs, may, pydantic.create_model(f"{name} settings", __config__=strict, **typed))


STEPS = {name: _step(name, function) for name, function in work.STEPS.items()}
MAKES = work.MAKES  # {step: kind of folder that it makes}


@dataclass(frozen=True)
class Result:
    """What became of a step: its folder, whether it was there before, and the seconds that it took when it was made."""

    folder: Path
    kept: bool
    seconds: float
    facts: dict = field(default_factory=dict)


def run(name, inputs, out, given=None, machines=None):
    """Run a step, or keep what it has made before from the same; returns a `Result`.

    inputs: folders and files, in any order: each says itself what it is. given: the settings, {name: value}. machines:
    `work.Machines`, where it runs; None is here. They are no setting: a step made elsewhere is kept here. A killed
    or failed step leaves `out` as it was. Raises CourseError on an unknown step, a setting that it does not have or
    that has a wrong value, inputs that are missing, foreign, changed or of no use to it, a step that does not run on
    a cluster, and as the work itself does.
    """
    step, out = find(name), Path(out).resolve()
    if machines and name not in work.SPREAD:
        raise CourseError(f"The step {name} runs on one machine: on a cluster runs {', '.join(sorted(work.SPREAD))}.")
    values, found = check(step, given or {}), recognised(step, inputs)
    made_from = {kind: told["content"] for kind, (_, told) in found.items()}
    settings_told = {setting: as_told(setting, value) for setting, value in values.items()}
    key = {"step": name, "code": code_version(), "inputs": made_from, "settings": settings_told}
    if (before := told_by(out)) and {part: before.get(part) for part in key} == key and not changed(out, before):
        return Result(out, True, before["seconds"], before["facts"])
    if out.exists() and before is None:
        raise CourseError(f"{out} was not made by a step: name another folder, so that nothing in it is lost.")
    begun = time.monotonic()
    with _checkpoints(out, sha256_text(key)) as checkpoints, atomic_folder(out) as folder:
        place = work.Place(folder, checkpoints, machines)
        facts = step.function(**{kind: path for kind, (path, _) in found.items()}, out=place, **values) or {}
        seconds = round(time.monotonic() - begun, 1)
        files = {f.relative_to(folder).as_posix(): sha256_of(f) for f in sorted(folder.rglob("*")) if f.is_file()}
        told = {"format": FORMAT, "makes": MAKES[name], **key, "seconds": seconds, "facts": facts}
        write_json(folder / MADE, told | {"files": files, "content": sha256_text(files)})
    return Result(out, False, seconds, facts)


@contextmanager
def _checkpoints(out, key):
    """A folder beside `out` that outlives a killed step, for the same work only; gone where the work ends well."""
    beside = out.with_name(f".{out.name}.unfinished")
    if not (beside / key).is_dir():
        shutil.rmtree(beside, ignore_errors=True)  # of other inputs or settings
    yield beside / key
    shutil.rmtree(beside, ignore_errors=True)


def as_told(name, value):
    """A setting as the manifest has it: files count by their content, and a private key is not told at all.

    Raises CourseError where there is no such file.
    """
    if name == "base" and value and Path(value).is_dir():
        return sha256_of(*(file for file in Path(value).iterdir() if file.is_file()))
    if not isinstance(value, Path):
        return value
    if not value.is_file():
        raise CourseError(f"There is no file {value}, which the setting '{name}' names.")
    return "(not told)" if name == "private_key" else sha256_of(value)


def sha256_text(value):
    """Hex SHA-256 of a plain value, whatever the order of its names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def find(name):
    """The `Step` of that name. Raises CourseError where there is none."""
    if name not in STEPS:
        raise CourseError(f"There is no step '{name}': known are {', '.join(STEPS)}.")
    return STEPS[name]


def plain_type(kind):
    """The type of a setting without its limits: int of `Annotated[int, ...] | None`."""
    if get_origin(kind) in (Union, types.UnionType):
        return plain_type(next(one for one in get_args(kind) if one is not type(None)))
    return plain_type(get_args(kind)[0]) if get_origin(kind) is Annotated else kind


def check(step, given):
    """The settings of a step, read and complete. Raises CourseError naming the first that is wrong."""
    try:
        return dict(step.settings.model_validate(given))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        name, known = ".".join(map(str, first["loc"])), ", ".join(step.settings.model_fields) or "none"
        if first["type"] == "extra_forbidden":
            raise CourseError(f"The step {step.name} has no setting '{name}': it has {known}.") from None
        if first["type"] == "missing":
            raise CourseError(f"The step {step.name} needs the setting '{name}'.") from None
        raise CourseError(f"The step {step.name}: {name}: {first['msg']}, not {first['input']!r}.") from None


def recognised(step, inputs):
    """{kind: (path, what is known of it)} of a step's inputs."""
    found = {}
    for path in map(Path, inputs):
        told = known(path)
        kind = told["makes"]
        if kind not in (*step.needs, *step.may):
            wanted = ", ".join((*step.needs, *step.may))
            raise CourseError(
                f"The step {step.name} has no use for {path}, which is a folder of {kind}: give {wanted}."
            )
        if kind in found:
            raise CourseError(f"{found[kind][0]} and {path} are both {kind}: the step {step.name} needs one.")
        found[kind] = path.resolve(), told
    if missing := [kind for kind in step.needs if kind not in found]:
        makers = [name for name, kind in MAKES.items() if kind == missing[0]]
        hint = f"the step {makers[0]} makes it" if makers else "it is where your messages are"
        raise CourseError(f"The step {step.name} needs {missing[0]}, and no --in is that: {hint}.")
    return found


def known(path):
    """What an input is: the content of its step.json, or as much of it as a data folder or a CSV file shows."""
    if path.is_file():
        return {"makes": "csv", "content": sha256_of(path)}
    if not path.is_dir():
        raise CourseError(f"There is no folder {path}: the step that makes it has to run before.")
    sweep(path)
    if told := told_by(path):
        if different := changed(path, told):
            raise CourseError(f"{path} is not as the step {told['step']} left it ({different}): let it be made again.")
        return told
    if (path / "schema.json").is_file():
        return {"makes": "data", "content": sha256_of(path / "schema.json", *path.glob("*.jsonl"))}
    raise CourseError(f"{path} is no folder that a step has made, and no data folder: it has no {MADE}.")


def told_by(folder):
    """The content of a folder's step.json, None where there is none. Raises CourseError where it cannot be read."""
    try:
        told = json.loads((folder / MADE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        told = None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise CourseError(f"{folder / MADE} is damaged or of another version: remove {folder}, and it is made again.")
    return told


def changed(folder, told):
    """The first file that is not as the step left it, in words; "" where all are."""
    here = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()} - {MADE}
    for name in sorted(here | set(told["files"])):
        if name not in here:
            return f"{name} is missing"
        if name not in told["files"]:
            return f"{name} is new"
        if sha256_of(folder / name) != told["files"][name]:
            return f"{name} was changed"
    return ""
