"""`slmops step ...`: one command for each step of `operations.steps`, made from its settings."""

import inspect
from pathlib import Path
from typing import Annotated

import typer

from slmops_lab.operations import steps, work

AT_LEAST_ONE = {"min": 1}
ELSEWHERE = {
    "on": (str | None, typer.Option(help="run on a Ray cluster: ray (this machine's cores), or ray:HOST:PORT"), None),
    "workers": (int | None, typer.Option(help="with --on: as many, else as there is room for", **AT_LEAST_ONE), None),
    "cores": (int, typer.Option(help="with --on: of each worker", **AT_LEAST_ONE), 1),
}


def add_to(app):
    """Give a typer application a command for each step."""
    for step in steps.STEPS.values():
        app.command(step.name, help=step.about)(_command(step))


def _command(step):
    def command(**given):
        inputs, out, on = given.pop("inputs"), given.pop("out"), given.pop("on", None)
        where = {name: given.pop(name) for name in ("workers", "cores") if name in given}
        machines = work.Machines(on, **where) if on else None
        told = {key: value for key, value in given.items() if value is not None}
        done = steps.run(step.name, inputs, out, told, machines)
        for name, fact in done.facts.items():
            for line in fact if name in ("notes", "reasons") else [fact]:
                print(f"{name}: {line}")
        print(f"{out}: {'kept, it was made before' if done.kept else f'made in {done.seconds / 60:.1f} minutes'}.")
        if done.facts.get("passed") is False:
            raise typer.Exit(1)

    wanted = ", ".join([*step.needs, *(f"{kind} (if there is one)" for kind in step.may)])
    more = {
        "inputs": (list[Path], typer.Option("--in", help=f"repeatable: {wanted}"), inspect.Parameter.empty),
        "out": (
            Path,
            typer.Option("--out", help=f"the folder to make, {steps.MAKES[step.name]}"),
            inspect.Parameter.empty,
        ),
    }
    more |= ELSEWHERE if step.name in work.SPREAD else {}
    for name, setting in step.settings.model_fields.items():
        plain = steps.plain_type(setting.annotation)
        default = inspect.Parameter.empty if setting.is_required() else setting.default
        more[name] = (plain if setting.is_required() or default is not None else plain | None, typer.Option(), default)
    command.__signature__ = inspect.Signature(
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
            for name, (kind, option, default) in more.items()
        ]
    )
    command.__annotations__ = {name: Annotated[kind, option] for name, (kind, option, _) in more.items()}
    return command
