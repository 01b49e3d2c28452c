"""What each step does: from folders to a folder, with the functions of the rooms below.

A function's positional parameters are the folders that it reads, named by their kind (with a default: it can do
without), and `out`, where it writes; its keyword parameters are its settings. What it returns, plain values, is
kept in the step's `step.json`. It neither skips work nor writes whole folders: `steps` does.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic

from slmops_lab.errors import CourseError
from slmops_lab.files import sha256_of, write_json

Count = Annotated[int, pydantic.Field(ge=1)]
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**32)]
Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, pydantic.Field(ge=0, le=1)]
MAKES = {  # step: the kind of folder that it makes
    **{"import": "data", "plan": "plan", "tune": "teacher", "label": "labels", "distill": "student"},
    **{"export": "model", "evaluate": "scores", "gate": "verdict", "package": "release"},
}


SPREAD = {"label"}  # steps that can run on the machines of a cluster


@dataclass(frozen=True)
class Machines:
    """A cluster, see `cluster.driver.address_of`; workers (None: as many as it has room for), cores of each."""

    on: str
    workers: int | None = None
    cores: int = 1


@dataclass(frozen=True)
class Place:
    """Where a step writes: an empty `folder`, and `checkpoints` that outlive a killed one; and where it runs."""

    folder: Path
    checkpoints: Path
    machines: Machines | None = None


def import_(
    csv: Path,
    out: Place,
    *,
    text_column: str,
    label_column: str,
    name: str = "messages",
    test: Path | None = None,
    labelled: Count | None = None,
    html: bool = False,
    seed: Seed = 0,
):
    """Make a data folder out of a CSV file; rows without a label become the pool."""
    from slmops_lab.task import importing

    made = importing.import_csv(
        csv, text_column, label_column, out.folder / name, test, labelled, seed, html, name, unlabelled=True
    )
    for file in (out.folder / name).iterdir():
        file.rename(out.folder / file.name)
    (out.folder / name).rmdir()
    sizes = {split: int(count) for split, count in made.dataset.sizes()["records"].items()}
    return {"records": sizes, "labels": len(made.labels), "notes": made.notes}


FIXED = 75.0  # seconds: opening models, two conversions, a race, the report; measured on two cores
STUDIED = 2.5  # times the lower half of the teacher: its whole depth reads a lesson, and what is fixed of the student


def plan(
    data: Path,
    out: Place,
    *,
    minutes: Positive = 15.0,
    base: str = "smollm2-135m",
    layers: Count | None = None,
):
    """Measure this machine for half a minute, and say how much training and labelling the minutes allow."""
    from slmops_lab.training import recipe

    desk = _data(data)
    took = recipe.pace(desk.task, base, desk.train, layers)
    fixed = FIXED + len(desk.test) * 2 * took["answer"] + len(desk.train) * (1 + STUDIED) * took["read"]
    left = 60 * minutes - fixed
    least = len(desk.train) * (took["tune"] + took["distil"])
    if left < least:
        raise CourseError(
            f"{minutes:g} minutes are too few here: to learn once from {len(desk.train)} labelled messages takes "
            f"{math.ceil((fixed + least) / 6) / 10:g}; give more minutes, or keep fewer labels (--labelled)."
        )
    told = shared_out(left, took, len(desk.train), len(desk.pool)) | {"base": base, "layers": layers}
    write_json(out.folder / "plan.json", told)
    paces = {f"{name}_ms": round(1e3 * seconds) for name, seconds in took.items()}
    return told | paces | {"expected_minutes": round((fixed + told["seconds"]) / 60, 1)}


def shared_out(left, took, train, pool):
    """How so many seconds are spent: epochs of the teacher, messages of the pool, steps of the student.

    Half for the teacher, at most three epochs; a fifth for labels, but no more than the student can learn from twice.
    The student gets the rest, at most six epochs of its lessons. (Twice, because 1,116 lessons in 614 steps taught less
    than 756 in 782: 5.3 points of 600 messages, 95 % interval 2.1 to 8.5.)
    """
    epochs = min(3.0, max(1.0, left / 2 / (train * took["tune"])))
    teacher, for_label = epochs * train * took["tune"], took["answer"] + STUDIED * took["read"]
    twice = (left - teacher - 2 * train * took["distil"]) / (for_label + 2 * took["distil"])
    labels = max(0, min(pool, int(left / 5 / for_label), int(twice)))
    spent = teacher + labels * for_label
    lessons = train + labels
    steps = min(6.0 * lessons, (left - spent) / took["distil"]) / 2
    steps = max(math.ceil(train / 2), int(steps))
    seconds = spent + 2 * steps * took["distil"]
    return {"epochs": round(epochs, 2), "pool": labels, "steps": steps, "seconds": round(seconds, 1)}


def tune(
    data: Path,
    out: Place,
    plan: Path | None = None,
    *,
    base: str | None = None,
    epochs: Positive | None = None,
    learning_rate: Positive = 2e-4,
    seed: Seed = 0,
):
    """Tune a teacher on the labelled messages."""
    from slmops_lab.training import recipe

    told, desk = _plan(plan), _data(data)
    base, epochs = base or told.get("base", "smollm2-135m"), epochs or told.get("epochs", 2.0)
    made = recipe.tune(desk.task, base, desk.train, epochs, learning_rate, seed, out.checkpoints)
    _save(made, out.folder)
    return made.facts | {"base": base}


def label(
    data: Path,
    teacher: Path,
    out: Place,
    plan: Path | None = None,
    *,
    pool: Annotated[int, pydantic.Field(ge=0)] | None = None,
    least_sure: Share = 0.5,
):
    """Let the teacher answer messages of the pool; answers that cannot be used are kept apart, with the reason."""
    from slmops_lab.training import base_model, distillation, recipe, teachers

    desk = _data(data)
    count = _plan(plan).get("pool") if pool is None else pool
    records = desk.pool[:count]
    if out.machines:
        from slmops_lab.operations.cluster import labelling

        ours = labelling.ClusterTeacher(teacher, out.checkpoints, **dataclasses.asdict(out.machines))
    else:
        model, tokenizer = base_model.open_model(teacher)
        ours = teachers.LocalTeacher(recipe.as_reader(model), tokenizer, name="the tuned teacher")
    asked = distillation.label(ours, desk.task, records, least_sure) if records else []
    lines = [json.dumps(dataclasses.asdict(one), ensure_ascii=False) + "\n" for one in asked]
    (out.folder / "pool.jsonl").write_text("".join(lines), encoding="utf-8")
    return {"asked": len(records), "kept": sum(one.answer is not None for one in asked)}


def distill(
    data: Path,
    teacher: Path,
    labels: Path,
    out: Place,
    plan: Path | None = None,
    *,
    layers: Count | None = None,
    steps: Count | None = None,
    learning_rate: Positive = 1e-3,
    seed: Seed = 0,
):
    """Train a small student on the labelled messages and on those that the teacher has labelled."""
    from slmops_lab.training import base_model, recipe

    told, desk = _plan(plan), _data(data)
    model, tokenizer = base_model.open_model(teacher)
    lessons = [*desk.train, *({"text": one["text"], "answer": one["answer"]} for one in _usable(labels))]
    texts = [record["text"] for record in [*desk.train, *desk.pool]]
    how = {"layers": layers or told.get("layers"), "steps": steps or told.get("steps", 960)}
    made = recipe.distil(desk.task, model, tokenizer, lessons, texts, **how, learning_rate=learning_rate, seed=seed)
    _save(made, out.folder)
    return made.facts


def export(out: Place, student: Path | None = None, teacher: Path | None = None, *, precision: str = "int4"):
    """Convert a student (or a teacher) for ONNX Runtime GenAI, in fewer bits."""
    from slmops_lab import measure
    from slmops_lab.deployment import export as exporting

    if bool(student) == bool(teacher):
        raise CourseError("The step export needs one model: give a student or a teacher with --in.")
    exporting.to_onnx(student or teacher, out.folder, precision)
    return {"megabytes": round(measure.weight_bytes(out.folder) / 1e6, 1), "precision": precision}


def evaluate(data: Path, teacher: Path, model: Path, out: Place, *, raced: Count = 30, seed: Seed = 0):
    """Let the model, its teacher and two word counters answer the test messages; write down what came out."""
    from slmops_lab.operations import report

    found = report.measured(_data(data), teacher, model, raced, seed)
    write_json(out.folder / "scores.json", found)
    return found["facts"]


def gate(scores: Path, out: Place, *, budgets: Path | None = None, profile: str | None = None):
    """Say whether the model may ship: it has to beat word counting, and to keep a budget where one is given."""
    from slmops_lab.deployment import gate as gates

    found = json.loads((scores / "scores.json").read_text(encoding="utf-8"))
    lead, rival = found["lead"], found["rival"]
    reasons = []
    if lead["low"] <= 0:
        reasons.append(
            f"it does not clearly beat {rival}: {100 * lead['points']:+.1f} points on {found['facts']['test']} test "
            f"messages (95 % interval {100 * lead['low']:+.1f} to {100 * lead['high']:+.1f})"
        )
    if budgets is not None:
        rows = gates.check(found["facts"], gates.load(budgets), profile or "")
        reasons += [
            f"{name} is {row['measured']:.4g} ({row['budget']})" for name, row in rows[~rows["passed"]].iterrows()
        ]
    told = {"passed": not reasons, "reasons": reasons}
    write_json(out.folder / "verdict.json", told)
    return told


def package(
    data: Path,
    model: Path,
    scores: Path,
    verdict: Path,
    out: Place,
    *,
    private_key: Path,
    version: str = "1.0.0",
    license: str = "Apache-2.0",
):
    """Sign a model that may ship, with its card, its bill of materials and what was measured."""
    from slmops_lab.deployment import package as packages

    if reasons := json.loads((verdict / "verdict.json").read_text(encoding="utf-8"))["reasons"]:
        raise CourseError(f"The model is not packed: {'; '.join(reasons)}.")
    desk = _data(data)
    found = json.loads((scores / "scores.json").read_text(encoding="utf-8"))
    about = f"Reads a message and writes {', '.join(desk.task.fields)} as JSON."
    lineage = {"data_sha256": sha256_of(data / "schema.json", *data.glob("*.jsonl")), "model_sha256": _weights(model)}
    target = out.folder / f"{desk.task.name}-{version}"
    facts = {key: value for key, value in found["facts"].items() if isinstance(value, int | float)}
    packages.pack(model, target, desk.task.name, version, license, facts, lineage, private_key, about)
    return {"package": target.name, "version": version}


STEPS = {
    **{"import": import_, "plan": plan, "tune": tune, "label": label, "distill": distill},
    **{"export": export, "evaluate": evaluate, "gate": gate, "package": package},
}


def _data(folder):
    from slmops_lab.task.data import load

    return load(folder)


def _plan(folder):
    return json.loads((folder / "plan.json").read_text(encoding="utf-8")) if folder else {}


def _usable(labels):
    lines = (labels / "pool.jsonl").read_text(encoding="utf-8").splitlines()
    return [one for one in map(json.loads, lines) if one["answer"] is not None]


def _weights(model):
    return sha256_of(model / "model.onnx", *model.glob("model.onnx.data"))


def _save(made, folder):
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
