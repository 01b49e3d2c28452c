"""The claims ledger: what people say about small models, next to what this run measured.

Rows are written by the run, never typed: `record` computes the verdict from the goal and the
measurement and keeps the row in claims.json.
"""

import json
from dataclasses import asdict, dataclass

import pandas

from slmops_lab.errors import CourseError
from slmops_lab.files import write_json

pandas.set_option("display.max_colwidth", 120)  # a claim is shown whole

EDGE_AI = (
    "Microsoft, EdgeAI for Beginners, module 5, section 2 (Model Distillation), "
    "https://github.com/microsoft/edgeai-for-beginners"
)


@dataclass(frozen=True)
class Claim:
    """One row's fixed part. goal is in `unit`; better says on which side of it success lies."""

    id: str
    chapter: str
    claim: str
    source: str
    goal: float
    unit: str
    better: str = "higher"


LEDGER = {
    c.id: c
    for c in [
        Claim(
            "inference-time",
            "04_deployment",
            "distillation cuts inference time by 85 % (3.2 s to 0.48 s)",
            EDGE_AI,
            85,
            "% less time per message",
        ),
        Claim(
            "memory",
            "04_deployment",
            "distillation cuts memory by 95 %",
            EDGE_AI,
            95,
            "% fewer model bytes",
        ),
        Claim(
            "process-memory",
            "04_deployment",
            "the same, asked of the whole process (the goal is the course's own)",
            EDGE_AI,
            80,
            "% less peak process memory",
        ),
        Claim(
            "accuracy-kept",
            "04_deployment",
            "92 % of the teacher's accuracy is kept",
            EDGE_AI,
            92,
            "% of the teacher's exact match",
        ),
        Claim(
            "int4-size",
            "04_deployment",
            "int4 quantization makes the model 75 % smaller",
            "Microsoft, EdgeAI for Beginners, module 4 (model conversion and quantization), "
            "https://github.com/microsoft/edgeai-for-beginners",
            75,
            "% fewer bytes than fp32",
        ),
        Claim(
            "lora-params",
            "03_fine_tuning",
            "LoRA trains a small share of the weights",
            "Hu et al. 2021, LoRA, https://arxiv.org/abs/2106.09685",
            4,
            "% of the weights trained",
            "lower",
        ),
        Claim(
            "lora-quality",
            "03_fine_tuning",
            "LoRA performs on par with full fine-tuning",
            "Hu et al. 2021, LoRA, https://arxiv.org/abs/2106.09685",
            -1,
            "points of exact match against full fine-tuning",
        ),
    ]
}


def record(run, id, measured, ci_low=None, ci_high=None, n=None):
    """Write one measured row to the run's claims.json and return it as a dict.

    measured and the interval are in the claim's unit. The verdict is 'held' where the measured
    value reaches the goal, else 'missed'. Rows of runs on other data, with another base model or
    seed are dropped: one ledger, one run. Raises CourseError for an id that is not in `LEDGER`.
    """
    if id not in LEDGER:
        raise CourseError(f"The ledger has no row '{id}': it has {', '.join(LEDGER)}.")
    claim = LEDGER[id]
    reached = measured >= claim.goal if claim.better == "higher" else measured <= claim.goal
    row = asdict(claim) | {
        "measured": float(measured),
        "ci_low": None if ci_low is None else float(ci_low),
        "ci_high": None if ci_high is None else float(ci_high),
        "n": n,
        "verdict": "held" if reached else "missed",
        "run": run.identity,
    }
    rows = {r["id"]: r for r in read(run.build) if r.get("run") == run.identity} | {id: row}
    write_json(run.build / "claims.json", [rows[key] for key in LEDGER if key in rows])
    return row


def read(build):
    """Rows of a build folder's claims.json, [] where there is none. Raises CourseError where it is damaged."""
    try:
        return json.loads((build / "claims.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise CourseError(f"{build / 'claims.json'} is damaged ({error}): delete it and run the chapters.") from error


def table(build, chapter=None):
    """The ledger as a DataFrame, of one chapter or of all."""
    rows = [r for r in read(build) if chapter in (None, r["chapter"])]
    return pandas.DataFrame(
        {
            "claim": [r["claim"] for r in rows],
            "measured here": [f"{r['measured']:.1f} {r['unit']}" for r in rows],
            "95 % interval": [_interval(r) for r in rows],
            "goal": [("at least " if r["better"] == "higher" else "at most ") + f"{r['goal']:g}" for r in rows],
            "verdict": [_verdict(r) for r in rows],
        }
    )


def _verdict(row):
    """The verdict looks at the measured value; where the interval crosses the goal, it says so."""
    crossed = row["ci_low"] is not None and row["ci_low"] < row["goal"] < row["ci_high"]
    return row["verdict"] + (", but the interval crosses the goal" if crossed else "")


def _interval(row):
    if row["ci_low"] is None:
        return ""
    return f"{row['ci_low']:.1f} to {row['ci_high']:.1f}" + (f" (n = {row['n']})" if row["n"] else "")
