import json
from dataclasses import replace

import pytest

from slmops_lab.course import claims
from slmops_lab.errors import CourseError

KEYS = "id chapter claim source goal unit measured ci_low ci_high n verdict".split()


def test_rows_have_the_contracts_keys(run):
    claims.record(run, "accuracy-kept", 97.0, 93.0, 100.5, 450)
    (row,) = json.loads((run.build / "claims.json").read_text())
    assert set(KEYS) <= set(row)
    assert row["verdict"] == "held" and row["n"] == 450


@pytest.mark.parametrize(
    ("id", "measured", "verdict"),
    [
        ("accuracy-kept", 92, "held"),
        ("accuracy-kept", 91.9, "missed"),
        ("lora-params", 1.8, "held"),
        ("lora-params", 4.1, "missed"),
        ("lora-quality", -0.5, "held"),
        ("lora-quality", -1.5, "missed"),
    ],
)
def test_verdict_follows_the_measurement(run, id, measured, verdict):
    assert claims.record(run, id, measured)["verdict"] == verdict


def test_a_second_measurement_replaces_the_first(run):
    claims.record(run, "memory", 50)
    claims.record(run, "lora-params", 2)
    claims.record(run, "memory", 94)
    assert [(r["id"], r["measured"]) for r in claims.read(run.build)] == [("memory", 94), ("lora-params", 2)]
    assert list(claims.table(run.build, "03_fine_tuning")["verdict"]) == ["held"]


def test_a_verdict_within_the_noise_says_so(run):
    claims.record(run, "accuracy-kept", 96.0, 89.0, 103.0, 450)
    claims.record(run, "lora-quality", -6.0, -11.0, -1.3, 300)
    said = list(claims.table(run.build)["verdict"])
    assert said == ["held, but the interval crosses the goal", "missed"]


def test_rows_of_another_run_are_dropped(run):
    claims.record(run, "memory", 50)
    other = replace(run, data_sha256="of other messages")
    claims.record(other, "lora-params", 2)
    assert [r["id"] for r in claims.read(run.build)] == ["lora-params"]


def test_empty_ledger_and_unknown_row(run):
    assert claims.table(run.build).empty
    with pytest.raises(CourseError, match="The ledger has no row 'fame'"):
        claims.record(run, "fame", 1)


def test_every_claim_has_a_source():
    assert all("http" in c.source and c.claim and c.unit for c in claims.LEDGER.values())
