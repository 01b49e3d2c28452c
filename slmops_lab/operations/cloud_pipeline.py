"""The graph of `pipeline`, rendered for Azure Machine Learning: a pipeline job and a component for each step, as YAML.

The components call the same `slmops step` commands, in an environment of the pins in requirements.lock, with the
library's code beside them. Steps that need a private key stay at home: sign what you download. Rendering needs no
network and no account, `submit` needs both and costs money. That a rendered graph runs in the service was not tried:
what is tested is that the SDK reads it, and what it would send.
"""

import shutil
from pathlib import Path

import yaml

from slmops_lab import settings
from slmops_lab.errors import CourseError
from slmops_lab.files import atomic_folder
from slmops_lab.operations import cloud, pipeline, steps

IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
SCHEMA = "https://azuremlschemas.azureedge.net/latest/{}.schema.json"
KINDS = {int: "integer", float: "number", bool: "boolean", str: "string"}
INSIDE = "made"  # an output is a mount, which cannot be replaced as a whole; a folder in it can
SECRETS = ("private_key",)


def render(graph, parameters, out, compute):
    """Write a graph for Azure into the folder `out`; returns the path of its pipeline.yml.

    parameters: as for `pipeline.run`; a file may be named by the id of a data asset (azureml:NAME:VERSION). compute:
    name of the workspace's compute. Raises CourseError on a graph that is not wired well, and on wrong settings.
    """
    if problem := next(pipeline.problems(graph), None):
        raise CourseError(f"{graph.name}: {problem}.")
    kept = {name: node for name, node in graph.steps.items() if not set(SECRETS) & set(node.settings)}
    jobs = {}
    with atomic_folder(Path(out)) as folder:
        (folder / "components").mkdir()
        for name, node in kept.items():
            component, inputs = _component(name, node, graph, parameters)
            _write(folder / "components" / f"{name}.yml", component)
            jobs[name] = {"type": "command", "component": f"./components/{name}.yml", "inputs": inputs}
        head = {"$schema": SCHEMA.format("pipelineJob"), "type": "pipeline", "display_name": graph.name}
        head |= {"experiment_name": graph.name, "settings": {"default_compute": f"azureml:{compute}"}}
        files = {one[1:] for node in kept.values() for one in node.reads if one.startswith("$")}
        head["inputs"] = {name: {"type": "uri_file", "path": _address(parameters[name])} for name in sorted(files)}
        _write(folder / "pipeline.yml", head | {"jobs": jobs})
        _write(folder / "environment.yml", _environment())
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(settings.ROOT / "slmops_lab", folder / "code" / "slmops_lab", ignore=ignored)
    return Path(out) / "pipeline.yml"


def _component(name, node, graph, parameters):
    """(component, what the pipeline gives it) of one node."""
    step = steps.STEPS[node.step]
    given = {key: pipeline.filled(value, parameters) for key, value in node.settings.items()}
    given = {key: value for key, value in given.items() if value is not None}
    steps.check(step, given)
    words, inputs, from_where = ["python -m slmops_lab step", node.step], {}, {}
    for one in node.reads:
        parameter = one.startswith("$")
        kind = one.lstrip("$")
        inputs[kind] = {"type": "uri_file" if parameter else "uri_folder"}
        from_where[kind] = f"${{{{parent.inputs.{kind}}}}}" if parameter else f"${{{{parent.jobs.{kind}.outputs.out}}}}"
        words.append(f"--in ${{{{inputs.{kind}}}}}" + ("" if parameter else f"/{INSIDE}"))
    for key, value in given.items():
        kind, option = steps.plain_type(step.settings.model_fields[key].annotation), f"--{key.replace('_', '-')}"
        if kind is bool:
            words += [option] if value else []
            continue
        inputs[key] = {"type": "uri_file" if kind is Path else KINDS[kind]}
        from_where[key] = {"type": "uri_file", "path": _address(value)} if kind is Path else value
        quote = "'" if kind is str else ""  # a column's name may have a space
        words.append(f"{option} {quote}${{{{inputs.{key}}}}}{quote}")
    component = {"$schema": SCHEMA.format("commandComponent"), "type": "command", "name": f"slmops_{name}"}
    component |= {"version": steps.code_version(), "description": step.about, "inputs": inputs}
    component |= {"outputs": {"out": {"type": "uri_folder"}}, "code": "../code"}
    component["environment"] = {"image": IMAGE, "conda_file": "../environment.yml"}
    component["command"] = " ".join([*words, f"--out ${{{{outputs.out}}}}/{INSIDE}"])
    return component, from_where


def _address(path):
    """A data asset's id, or the path of a file, which Azure's client uploads."""
    if str(path).startswith("azureml:"):
        return str(path)
    if not Path(path).is_file():
        raise CourseError(f"There is no file {path}: give one, or the id of a data asset (azureml:NAME:VERSION).")
    return str(Path(path).resolve())


def _environment():
    lines = (settings.ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return {"name": "slmops", "channels": ["conda-forge"], "dependencies": ["python=3.11", "pip", {"pip": pins}]}


def _write(path, value):
    path.write_text(yaml.safe_dump(value, sort_keys=False, width=120), encoding="utf-8")


@cloud.quietly()
def read(path):
    """The SDK's job of a rendered pipeline.yml. Raises CourseError where the SDK does not take it."""
    from azure.ai.ml import load_job

    if not Path(path).is_file():
        raise CourseError(f"There is no rendered pipeline {path}.")
    try:
        return load_job(path)
    except Exception as error:  # marshmallow, pydantic and the SDK raise their own kinds
        raise CourseError(
            f"{path} is no pipeline job that Azure's SDK takes: {str(error).strip().splitlines()[0]}"
        ) from None
