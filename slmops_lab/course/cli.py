"""The `slmops` command: what a user types is read here, what is done stands in the rooms below.

Each command imports what else it needs, so that `slmops serve` starts without pandas and without torch.
"""

import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from slmops_lab import settings
from slmops_lab.course import chapters, cloud_commands, step_commands
from slmops_lab.deployment.endpoint import launch, protocol, server
from slmops_lab.errors import CourseError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
data_app = typer.Typer(no_args_is_help=True, help="Make and check data folders.")
app.add_typer(data_app, name="data")
step_app = typer.Typer(no_args_is_help=True, help="One step on the way from messages to a signed model.")
app.add_typer(step_app, name="step")
step_commands.add_to(step_app)
cloud_app = typer.Typer(no_args_is_help=True, help="A signed package in an Azure workspace: shown, or sent.")
app.add_typer(cloud_app, name="cloud")
cloud_commands.add_to(cloud_app)
out = Console(soft_wrap=True)


def main():
    """Entry point: a `CourseError`, or a file that cannot be written, is one sentence and exit code 1."""
    for stream in (sys.stdout, sys.stderr):  # a letter that the terminal lacks is no reason to stop
        stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except CourseError as error:
        sys.exit(f"slmops: {error}")
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        sys.exit(f"slmops: The system refuses: {error.strerror or error}{where}.")


@app.command("doctor")
def examine(
    models: Annotated[bool, typer.Option("--models", help="which models fit into this memory, computed")] = False,
):
    """Say what this machine can run, and what is missing."""
    if models:
        from slmops_lab.training import sizes

        limit = settings.memory_limit()
        print(f"GB of memory; what needs more than the {limit / 1e9:.1f} allowed here is marked (no):")
        print(sizes.table(limit).to_string())
        return
    from slmops_lab.course import doctor

    findings = list(doctor.findings())
    for good, what, found, advice in findings:
        verdict = "[green]ok[/]" if good else "[red]no[/]"
        out.print(f"{verdict} {what:24} {escape(found)}" + (f": {escape(advice)}" if advice else ""), highlight=False)
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


@app.command()
def fetch(model: Annotated[str, typer.Argument()] = "smollm2-135m"):
    """Download the base model, unless it is there."""
    from slmops_lab.training import base_model

    out.print(f"Base model: {base_model.fetch(model)}")


@app.command()
def run(
    chapter: Annotated[list[str] | None, typer.Argument(help="names or numbers; all if none")] = None,
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value, repeatable")] = None,
    profile: Annotated[str | None, typer.Option(help="full or quick")] = None,
):
    """Execute chapters headlessly; the executed notebooks go to build/notebooks."""
    notebooks = [chapters.find(name) for name in chapter or chapters.names()]
    if not notebooks:
        raise CourseError(f"There are no notebooks in {chapters.NOTEBOOKS}.")
    known = {name: default for notebook in notebooks for name, default in chapters.parameters_of(notebook).items()}
    values = chapters.parse_parameters(parameter or [], known)
    profile = profile or values.get("profile") or os.environ.get("SLMOPS_PROFILE") or "full"
    build = _reports(profile)
    if "dataset" in values:
        values["dataset"] = str(settings.dataset_folder(values["dataset"]))
    if profile != "full" or "profile" in values or os.environ.get("SLMOPS_PROFILE"):
        values["profile"] = profile
    for notebook in notebooks:  # before the first one has run for minutes
        chapters.refuse_unknown(notebook, values)
    for notebook in notebooks:
        out.print(f"{notebook.stem} ...")
        report = chapters.execute(str(notebook), values, build)
        minutes, gigabytes = report["seconds"] / 60, report["peak_bytes"] / 1e9
        out.print(f"{notebook.stem}: {minutes:.1f} minutes, at most {gigabytes:.1f} GB")
    ledger(profile)


def _reports(profile):
    if profile not in settings.PROFILES:
        raise CourseError(f"There is no profile '{profile}': give one of {', '.join(settings.PROFILES)}.")
    return settings.build_folder(profile)


@app.command()
def ledger(profile: Annotated[str, typer.Option()] = "full"):
    """Print the claims ledger of the last run."""
    from slmops_lab.course import claims

    rows = claims.table(_reports(profile))
    if rows.empty:
        out.print("The ledger is empty: run the chapters first (make course).")
        return
    table = Table(title="Claims ledger", title_justify="left")
    for column in (rows.columns.name, *rows.columns):
        table.add_column(column)
    for row in rows.itertuples():
        table.add_row(*map(str, row))
    out.print(table)


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="an ONNX Runtime GenAI model")],
    name: Annotated[str, typer.Option(help="what clients call the model")] = "student",
    adapter: Annotated[
        list[str] | None, typer.Option(help="name=file.onnx_adapter, repeatable: one more model each")
    ] = None,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 8000,
    token: Annotated[bool, typer.Option(help="ask clients for a bearer token")] = True,
    gateway: Annotated[
        bool,
        typer.Option("--behind-gateway", help="with --no-token: a cloud's gateway asks, and nobody gets past it"),
    ] = False,
    log: Annotated[Path | None, typer.Option(help="request log, redacted JSON lines")] = None,
    queue: Annotated[int, typer.Option(min=0, help="requests that may wait")] = protocol.Limits.queue,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="longest time of a request: clients' own time-out has to be longer")
    ] = protocol.Limits.seconds,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="host name that it answers to, besides this machine's own; repeatable")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="web page that may ask, such as https://shop.example; repeatable")
    ] = None,
    on: Annotated[
        str | None, typer.Option(help="serve from a Ray cluster: ray (this machine's cores), or ray:HOST:PORT")
    ] = None,
    replicas: Annotated[int, typer.Option(min=1, help="with --on: models that answer side by side")] = 1,
    cores: Annotated[int, typer.Option(min=1, help="with --on: of each replica")] = 1,
):
    """Serve a model to OpenAI clients; the token is SLMOPS_SERVE_TOKEN, else made up and printed."""
    from slmops_lab.deployment import runtime

    secret = None
    if token and not (secret := os.environ.get(protocol.TOKEN_VARIABLE)):
        secret = secrets.token_urlsafe(24)
        print(f"Token: {secret}")
    files = dict(pair.split("=", 1) if "=" in pair else ("", pair) for pair in adapter or [])
    for adapter_name, file in files.items():
        if not adapter_name or not Path(file).is_file():
            raise CourseError(f"'{adapter_name}={file}' is no adapter: write name=FILE of a file that is there.")
    limits = protocol.Limits(queue=queue, seconds=seconds)
    hosts = [*protocol.LOOPBACK, *(allow_host or [])] if allow_host or host in protocol.LOOPBACK else None
    how = {"limits": limits, "log": log, "hosts": hosts, "origins": allow_origin or ()}
    if on:
        from slmops_lab.operations.cluster import serving

        return serving.serve(folder, on, host, port, secret, how | {"name": name, "files": files}, replicas, cores)
    made = server.application(runtime.GenAIRuntime(folder, files), name, secret, **how)
    launch.serve(made, host, port, secret, seconds, gateway)


@app.command("bench")
def benchmark(
    folder: Annotated[Path, typer.Argument(help="an ONNX Runtime GenAI model")],
    rounds: Annotated[int, typer.Option(min=1, help="measured rounds per prompt length")] = 5,
):
    """Measure how fast a model answers, against what this machine's memory allows."""
    from slmops_lab import measure
    from slmops_lab.operations import bench

    table, memory = bench.speed(folder, rounds=rounds)
    limit = bench.bandwidth() / measure.weight_bytes(folder)
    for prompt, row in table.iterrows():
        share = 100 * row["per_second"] / limit
        print(
            f"prompt of {prompt} tokens: {row['first_ms']:.0f} ms to the first token, then {row['per_second']:.0f} "
            f"tokens/s ({share:.0f} % of the memory's limit), {row['cores']:.1f} cores busy"
        )
    print(f"peak memory of the process: {memory / 1e6:.0f} MB; weights: {measure.weight_bytes(folder) / 1e6:.0f} MB")


@app.command("gate")
def release_gate(
    folder: Annotated[Path, typer.Argument(help="a signed package")],
    budgets: Annotated[Path, typer.Option(help="YAML file with a budget per profile")],
    profile: Annotated[str, typer.Option(help="which kind of device")],
    key: Annotated[Path, typer.Option(help="public key of the signer")],
    name: Annotated[str | None, typer.Option(help="what the package has to be")] = None,
):
    """Verify a package and hold its metrics against a budget; exit code 1 where it may not go out."""
    from slmops_lab.deployment import gate, package

    told = package.verify(folder, key, name=name)
    rows = gate.check(told["metrics"], gate.load(budgets), profile)
    for name, row in rows.iterrows():
        print(f"{'ok' if row['passed'] else 'NO':3} {name}: {row['measured']:.4g} ({row['budget']})")
    if not rows["passed"].all():
        failed = ", ".join(rows.index[~rows["passed"]])
        raise CourseError(f"{told['name']} {told['version']} may not go to '{profile}': {failed}.")
    print(f"{told['name']} {told['version']} may go to '{profile}'.")


@app.command()
def make(
    csv: Annotated[Path, typer.Argument(help="messages; rows without a label are for the teacher to label")],
    text_column: Annotated[str, typer.Option()],
    label_column: Annotated[str, typer.Option()],
    to: Annotated[Path, typer.Option("--out", help="folder for the package, the report and the work")],
    minutes: Annotated[float, typer.Option(min=0.1, help="how long it may take, about")] = 15.0,
    test: Annotated[Path | None, typer.Option(help="CSV with the test messages, else a fifth is held out")] = None,
    labelled: Annotated[int | None, typer.Option(help="keep N labels, the teacher writes the rest")] = None,
    html: Annotated[bool, typer.Option("--html", help="the texts are HTML: keep their words only")] = False,
    base: Annotated[str, typer.Option(help="base model: name, folder or hub id")] = "smollm2-135m",
    layers: Annotated[int | None, typer.Option(help="of the student, else half of the base model's")] = None,
    budgets: Annotated[Path | None, typer.Option(help="YAML file with a budget per profile")] = None,
    profile: Annotated[str | None, typer.Option(help="which of the budgets")] = None,
    version: Annotated[str, typer.Option()] = "1.0.0",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    azure: Annotated[
        str | None,
        typer.Option(help="name of an Azure ML compute: write the same steps for it to OUT/azure, run nothing"),
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="with --azure: send it, which costs money")] = False,
):
    """From labelled messages to a signed model that can be served, with a report; goes on where it was stopped."""
    given = {key: value for key, value in locals().items() if key not in ("to", "azure", "submit")}
    import re

    from slmops_lab.operations import pipeline

    name = re.sub(r"\W+", "_", csv.stem).strip("_").lower() or "messages"
    if azure or submit:
        return _for_azure(given | {"csv": csv, "name": name}, to / "azure", azure, submit)
    packed = pipeline.make(to, given | {"csv": csv, "name": name}, lambda line: print(line, flush=True))
    print(f"Report: {to / 'report.html'}\nServe it with: slmops serve {packed}")


@app.command()
def handout(
    chapter: Annotated[list[str] | None, typer.Argument(help="names or numbers; all if none")] = None,
    to: Annotated[Path, typer.Option("--out", help="a new folder")] = Path("handout"),
    outputs: Annotated[bool, typer.Option(help="keep what the published run printed")] = False,
    nbgrader: Annotated[bool, typer.Option("--nbgrader", help="mark the exercises for nbgrader")] = False,
):
    """Write the chapters for learners: without solutions, and without outputs."""
    from slmops_lab.course import editions

    print(*editions.hand_out(to, chapter, outputs, nbgrader), sep="\n")


@app.command()
def grade(
    notebook: Annotated[list[Path], typer.Argument(help="notebooks, or folders with one folder for each learner")],
    to: Annotated[Path, typer.Option("--out", help="folder for LEARNER.json and class.csv")] = Path("grades"),
    seconds: Annotated[float, typer.Option(min=1, help="longest time of one answer")] = 60.0,
    megabytes: Annotated[int, typer.Option(min=500, help="largest memory of one answer")] = 2_000,
    workers: Annotated[int, typer.Option(min=1, help="answers at once")] = 2,
):
    """Run learners' answers to the exercises, each in a process of its own, and say which are right."""
    from slmops_lab.course import grading

    limits = grading.Limits(seconds=seconds, megabytes=megabytes)
    graded = grading.grade(notebook, to, limits, workers, lambda line: print(line, flush=True))
    print(f"{to / 'class.csv'}: {len(graded)} learner{'s' * (len(graded) > 1)} graded")


def _for_azure(given, to, compute, submit):
    from slmops_lab.operations import cloud, cloud_pipeline, pipeline

    if not compute:
        raise CourseError("--submit sends what --azure COMPUTE writes: give the name of a compute of your workspace.")
    file = cloud_pipeline.render(pipeline.load(pipeline.TEMPLATE), given, to, compute)
    job = cloud_pipeline.read(file)
    print(f"{file}: {len(job.jobs)} steps; the signing stays at home (slmops step package).")
    if submit:
        name = cloud.submit(job)
        print(
            f"Sent as {name}."
            if name
            else f"Nothing was sent: no workspace is configured ({', '.join(cloud.WORKSPACE)})."
        )


@data_app.command("check")
def data_check(folder: Path):
    """Say, with file and line, what is wrong in a data folder."""
    from slmops_lab.task import data as data_folders

    problems = data_folders.check(settings.dataset_folder(folder))
    for problem in problems:
        print(problem)
    if problems:
        raise CourseError(f"{folder} has {len(problems)} problem{'s' * (len(problems) > 1)}.")
    sizes = data_folders.load(settings.dataset_folder(folder)).sizes()["records"]
    print("No problems: " + ", ".join(f"{count} {name}" for name, count in sizes.items() if count))


@data_app.command("import")
def data_import(
    csv: Path,
    text_column: Annotated[str, typer.Option()],
    label_column: Annotated[str, typer.Option()],
    to: Annotated[Path, typer.Option("--out")],
    test: Annotated[Path | None, typer.Option(help="CSV with the test messages")] = None,
    labelled: Annotated[int | None, typer.Option(help="keep N labelled, the rest is the pool")] = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="rows without a label are kept: they join the pool")
    ] = False,
    seed: Annotated[int, typer.Option()] = 0,
    html: Annotated[bool, typer.Option("--html", help="the texts are HTML: keep their words only")] = False,
):
    """Make a data folder out of a CSV file: one message and one label per line."""
    from slmops_lab.task import importing

    made = importing.import_csv(csv, text_column, label_column, to, test, labelled, seed, html, unlabelled=unlabelled)
    print(made.labels.to_string(), *made.notes, sep="\n")
    sizes = ", ".join(f"{count} {name}" for name, count in made.dataset.sizes()["records"].items() if count)
    print(f"{to}: {sizes}. Use it with: slmops run -p dataset={to}")
