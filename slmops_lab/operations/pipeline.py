"""Steps as one declared graph: read from YAML, checked before anything runs, run on this machine.

The graph has no loops and no conditions: a step reads what stands above it. Each step's folder lies in one work folder
under its name in the graph; `steps` decides what has to be made anew. `make` is the graph from a CSV file to a package.
"""

import json
import re
import shutil
from pathlib import Path

import pydantic
import yaml
from filelock import FileLock, Timeout

from slmops_lab.errors import CourseError
from slmops_lab.operations import steps

TEMPLATE = Path(__file__).parent / "templates" / "messages_to_model.yaml"


class Node(pydantic.BaseModel, extra="forbid"):
    """One step of a graph: which one, what it reads (names of nodes above, or $parameters), its settings."""

    step: str
    reads: list[str] = pydantic.Field(default=[], alias="in")
    settings: dict[str, pydantic.JsonValue] = {}


class Graph(pydantic.BaseModel, extra="forbid"):
    """The content of a pipeline file."""

    name: str
    parameters: list[str] = []
    steps: dict[str, Node] = pydantic.Field(min_length=1)


def load(path):
    """YAML file -> `Graph`. Raises CourseError where it cannot be read, and with the first fault in its wiring."""
    try:
        graph = Graph.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise CourseError(f"{path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}," if mark else ""
        raise CourseError(f"{path}{where} is no YAML that can be used.") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise CourseError(f"{path}: {where}: {first['msg']}.") from None
    if problem := next(problems(graph), None):
        raise CourseError(f"{path}: {problem}.")
    return graph


def problems(graph):
    """Yield what is wrong in the wiring of a graph: unknown steps, inputs and settings, in order."""
    makes = {}
    for name, node in graph.steps.items():
        if not re.fullmatch(r"[\w-]+", name):
            yield f"'{name}' cannot be the name of a folder: use letters, digits, - and _"
        if node.step not in steps.STEPS:
            yield f"{name} asks for the step '{node.step}': known are {', '.join(steps.STEPS)}"
            continue
        step, kinds = steps.STEPS[node.step], []
        for one in node.reads:
            if one.startswith("$"):
                kinds.append("csv")
                if one[1:] not in graph.parameters:
                    yield f"{name} reads {one}, which is none of the parameters"
            elif one not in makes:
                below = "stands below it: put it above" if one in graph.steps else "is not there"
                yield f"{name} reads '{one}', which {below}"
            else:
                kinds.append(makes[one])
        if foreign := [kind for kind in kinds if kind not in (*step.needs, *step.may)]:
            yield f"{name} reads {foreign[0]}, for which the step {node.step} has no use"
        if missing := [kind for kind in step.needs if kind not in kinds]:
            yield f"{name} reads no {missing[0]}, which the step {node.step} needs"
        if strange := [key for key in node.settings if key not in step.settings.model_fields]:
            yield f"{name} has the setting '{strange[0]}', which the step {node.step} does not have"
        for value in node.settings.values():
            if isinstance(value, str) and value.startswith("$") and value[1:] not in graph.parameters:
                yield f"{name} uses {value}, which is none of the parameters"
        makes[name] = steps.MAKES[node.step]


def run(graph, parameters, folder, say=print):
    """Run a graph's steps in order; yields (name, `steps.Result`) after each. Finished steps are kept.

    parameters: {name: value}; a step's setting whose parameter is None keeps its default. All settings are checked
    before the first step runs. say: called with one line for each step. Raises CourseError as `steps.run` does.
    """
    given = {}
    for name, node in graph.steps.items():
        values = {key: filled(value, parameters) for key, value in node.settings.items()}
        given[name] = {key: value for key, value in values.items() if value is not None}
        for setting, value in steps.check(steps.STEPS[node.step], given[name]).items():
            steps.as_told(setting, value)  # a file that is not there is said now, not after minutes of work
    for name, node in graph.steps.items():
        inputs = [filled(one, parameters) if one.startswith("$") else folder / one for one in node.reads]
        done = steps.run(node.step, inputs, folder / name, given[name])
        say(
            f"{name}: {'kept, it was made before' if done.kept else f'{done.seconds / 60:.1f} min'}{_short(done.facts)}"
        )
        yield name, done


def filled(value, parameters):
    """A value of a graph, or the parameter that it names with a $."""
    return parameters.get(value[1:]) if isinstance(value, str) and value.startswith("$") else value


def _short(facts):
    plain = {key: value for key, value in facts.items() if isinstance(value, int | float | str) and value != ""}
    shown = [f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in plain.items()]
    return ("; " + ", ".join(shown[:5])) if shown else ""


def make(out, parameters, say=print):
    """From a CSV file to `out`: report.md, report.html, and where the model may ship its package and public.pem.

    parameters: those of `TEMPLATE`, but private_key. Work is kept in out/work, and a second call goes on there. Returns
    the package's folder. Raises CourseError where it does not ship (the reports are written before), where another
    process works there, and as `run` does.
    """
    from slmops_lab.deployment import package
    from slmops_lab.operations import report

    out = Path(out).resolve()
    keys = out / "keys"
    try:
        (out / "work").mkdir(parents=True, exist_ok=True)
        with FileLock(out / "work" / ".lock", timeout=0):
            if not (keys / "private.pem").is_file():
                package.make_keys(keys)
            told = {}
            graph = load(TEMPLATE)
            release = graph.steps.pop("release")  # comes after the report, which is written in any case
            for name, done in run(graph, parameters, out / "work", say):
                told[name] = done
            verdict = _write_report(out, told, parameters, report)
            if not verdict["passed"]:
                raise CourseError(
                    f"The model does not ship: {'; '.join(verdict['reasons'])}. Read {out / 'report.html'}."
                )
            graph.steps = {"release": release}
            parameters = {**parameters, "private_key": str(keys / "private.pem")}
            ((_, made),) = run(graph, parameters, out / "work", say)
    except Timeout:
        raise CourseError(f"Another process is making a model in {out}: wait for it, or give another --out.") from None
    packed = out / made.facts["package"]
    shutil.rmtree(packed, ignore_errors=True)
    shutil.copytree(made.folder / packed.name, packed)
    shutil.copy(keys / "public.pem", out / "public.pem")
    return packed


def _write_report(out, done, parameters, report):
    found, verdict = (
        json.loads((done[name].folder / file).read_text(encoding="utf-8"))
        for name, file in (("scores", "scores.json"), ("verdict", "verdict.json"))
    )
    rows = [[name, f"{one.seconds / 60:.1f}", _short(one.facts).lstrip("; ")] for name, one in done.items()]
    text = report.markdown(
        {"name": parameters["name"], "scores": found, "verdict": verdict, "data": done["data"].facts, "steps": rows}
    )
    (out / "report.md").write_text(text, encoding="utf-8")
    (out / "report.html").write_text(report.page(text, parameters["name"]), encoding="utf-8")
    return verdict
