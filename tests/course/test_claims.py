import json
import math
import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from pydantic import TypeAdapter

from slmops_lab.course import claims
from slmops_lab.errors import CourseError

KEYS = "id chapter claim source goal unit measured ci_low ci_high n verdict".split()


def test_rows_have_the_contracts_keys(run):
    claims.record(run, "accuracy-kept", 97.0, 93.0, 100.5, 450)
    (row,) = json.loads((run.build / "claims.json").read_text())
    assert set(KEYS) <= set(row)
    assert row["verdict"] == "held" and row["n"] == 450


@pytest.mark.parametrize(
    ("id", "measured", "interval", "verdict"),
    [
        ("accuracy-kept", 92, (), "held"),
        ("accuracy-kept", 91.9, (), "missed"),
        ("lora-params", 1.8, (), "held"),
        ("lora-params", 4.1, (), "missed"),
        ("lora-quality", -0.5, (), "held"),
        ("lora-quality", -1.5, (), "missed"),
        ("accuracy-kept", 96, (92, 100), "held"),
        ("accuracy-kept", 96, (91.9, 100), "cannot tell"),
        ("accuracy-kept", 90, (88, 92), "cannot tell"),
        ("accuracy-kept", 90, (88, 91.9), "missed"),
        ("lora-params", 3, (2, 4), "held"),
        ("lora-params", 3, (2, 4.1), "cannot tell"),
        ("lora-params", 5, (4, 6), "cannot tell"),
        ("lora-params", 5, (4.1, 6), "missed"),
        ("accuracy-kept", math.nan, (), "cannot tell"),
        ("accuracy-kept", 96, (math.nan, math.nan), "cannot tell"),
        ("accuracy-kept", 96, (93, math.inf), "held"),
    ],
)
def test_verdict_follows_the_measurement(run, id, measured, interval, verdict):
    assert claims.record(run, id, measured, *interval)["verdict"] == verdict
    assert list(claims.table(run.build)["verdict"]) == [verdict]


@pytest.mark.parametrize("interval", [(93, None), (None, 93), (100, 93)])
def test_half_an_interval_is_none(run, interval):
    with pytest.raises(ValueError, match="is no interval"):
        claims.record(run, "accuracy-kept", 96, *interval)
    assert claims.read(run.build) == []


def test_what_is_no_number_is_null(run):
    claims.record(run, "accuracy-kept", math.nan, 3, math.inf, 40)
    text = (run.build / "claims.json").read_text(encoding="utf-8")
    (row,) = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (row["measured"], row["ci_low"], row["ci_high"], row["verdict"]) == (None, 3, None, "cannot tell")
    shown = claims.table(run.build).iloc[0]
    assert "no number" in shown["measured here"] and shown["95 % interval"] == "3.0 to no upper end (n = 40)"


def test_a_second_measurement_replaces_the_first(run):
    claims.record(run, "memory", 50)
    claims.record(run, "lora-params", 2)
    claims.record(run, "memory", 94)
    assert [(r["id"], r["measured"]) for r in claims.read(run.build)] == [("memory", 94), ("lora-params", 2)]
    assert list(claims.table(run.build, "03_fine_tuning")["verdict"]) == ["held"]


def test_rows_of_another_run_are_dropped(run):
    claims.record(run, "memory", 50)
    other = replace(run, data_sha256="of other messages")
    claims.record(other, "lora-params", 2)
    assert [r["id"] for r in claims.read(run.build)] == ["lora-params"]


def test_empty_ledger_and_unknown_row(run):
    assert claims.table(run.build).empty
    with pytest.raises(CourseError, match="The ledger has no row 'fame'"):
        claims.record(run, "fame", 1)


def test_a_ledger_that_is_no_json_is_one_sentence(run):
    run.build.mkdir(parents=True)
    (run.build / "claims.json").write_text("[{")
    for use in (claims.read, claims.table):
        with pytest.raises(CourseError, match="claims.json is damaged: delete it"):
            use(run.build)


def test_claims_without_a_verdict_of_their_own():
    """What stands in the file: each field of its kind, no id twice, a source that can be looked up, a chapter."""
    rows = yaml.safe_load(Path(claims.__file__).with_name("claims.yaml").read_text(encoding="utf-8"))
    ids = [row["id"] for row in rows]
    assert list(claims.LEDGER) == ids and len(set(ids)) == len(ids) > 5
    chapters = {path.stem for path in (REPOSITORY / "notebooks").glob("[0-9]*.py")}
    for row in TypeAdapter(list[claims.Claim]).validate_python(rows, strict=False):
        assert row.chapter in chapters and row.better in ("higher", "lower")
        assert row.claim and row.unit and "https://" in row.source and "\n" not in row.source
    for row in rows:
        assert set(row) <= {field.name for field in fields(claims.Claim)}
        recorded = (REPOSITORY / "notebooks" / f"{row['chapter']}.py").read_text(encoding="utf-8")
        assert f'record(run, "{row["id"]}"' in recorded, "a promise that no chapter keeps"


def test_what_is_not_python_is_in_the_package_too():
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    for package in settings["packages"]:
        named = settings["package-data"].get(package, [])
        for path in (REPOSITORY / package.replace(".", "/")).iterdir():
            if path.is_file() and path.suffix != ".py":
                assert any(path.match(name) for name in named), path
