"""`slmops cloud ...`: a signed package in an Azure workspace. Each shows what it would send, `--submit` sends it.

Imports nothing heavy: the command line starts without Azure's library.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="a signed package")]
Key = Annotated[Path, typer.Option(help="public key of the signer")]
Submit = Annotated[bool, typer.Option("--submit/--show", help="send it, which costs money")]


def add_to(app):
    """Give a typer application the commands."""
    for command in (register, deploy, shift):
        app.command()(command)


def register(
    folder: Folder,
    key: Key,
    budgets: Annotated[Path | None, typer.Option(help="YAML file with a budget per profile")] = None,
    profile: Annotated[str | None, typer.Option(help="which of the budgets the gate's verdict is for")] = None,
    submit: Submit = False,
):
    """Register a signed package as a model, with its hashes and the gate's verdict."""
    from slmops_lab.operations import cloud, cloud_models

    model = cloud_models.asset(folder, key, budgets, profile)
    if not submit:
        _show([(f"model {model.name} {model.version}", cloud.what_is_sent(model))])
        return
    _sent(cloud_models.register(model), "Registered as {}.")


def deploy(
    folder: Folder,
    key: Key,
    endpoint: Annotated[str, typer.Option(help="name, one of its own in the whole region")],
    machine: Annotated[str, typer.Option(help="from the service's list of machines")] = "Standard_F2s_v2",
    submit: Submit = False,
):
    """Bring a registered package behind an endpoint, beside the version that answers there, without traffic yet."""
    from slmops_lab.operations import cloud_models, cloud_rollout

    model = cloud_models.asset(folder, key)
    if not submit:
        _show(cloud_rollout.bodies(endpoint, model, instance_type=machine))
        return
    _sent(cloud_rollout.deploy(endpoint, model, instance_type=machine), f"{endpoint}: {{}}.")


def shift(
    endpoint: Annotated[str, typer.Argument(help="name of the endpoint")],
    to: Annotated[str, typer.Option(help="blue or green")],
    percent: Annotated[int, typer.Option(min=0, max=100, help="of the traffic; the other one gets the rest")],
    submit: Submit = False,
):
    """Give a deployment its share of an endpoint's traffic; back is --percent 0."""
    from slmops_lab.operations import cloud, cloud_rollout

    if not submit:
        _show([(f"{to} {percent} %", cloud.what_is_sent(cloud_rollout.shared(endpoint, to, percent)))])
        return
    _sent(cloud_rollout.shift(endpoint, to, percent), f"{endpoint}: {{}}.")


def _show(bodies):
    for what, body in bodies:
        print(f"{what}: {json.dumps(body, indent=2)}")
    print("Nothing was sent: --submit sends it, which costs money.")


def _sent(result, sentence):
    from slmops_lab.operations import cloud

    if result is None:
        print(f"Nothing was sent: no workspace is configured ({', '.join(cloud.WORKSPACE)}).")
        return
    told = ", ".join(f"{name} {part} %" for name, part in result.items()) if isinstance(result, dict) else result
    print(sentence.format(told))
