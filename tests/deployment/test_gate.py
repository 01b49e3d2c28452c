import math
import subprocess
import sys

import pytest

from slmops_lab.deployment import gate, package
from slmops_lab.errors import CourseError

BUDGETS = """
till:
  at_least: {exact_match_low: 0.6}
  at_most: {megabytes: 40, p95_ms: 300}
watch:
  at_most: {megabytes: 5}
"""
GOOD = {"exact_match_low": 0.66, "megabytes": 27.0, "p95_ms": 80}


@pytest.fixture
def budgets(tmp_path):
    path = tmp_path / "budgets.yaml"
    path.write_text(BUDGETS)
    return path


def test_every_budget_has_a_row(budgets):
    rows = gate.check(GOOD, gate.load(budgets), "till")
    assert rows["passed"].to_dict() == {"exact_match_low": True, "megabytes": True, "p95_ms": True}
    assert rows["budget"].to_dict() == {
        "exact_match_low": "at least 0.6",
        "megabytes": "at most 40",
        "p95_ms": "at most 300",
    }
    assert not gate.passes(GOOD, gate.load(budgets), "watch")


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "fast", True, 301, 300.0001])
def test_what_is_not_measured_does_not_pass(budgets, value):
    rows = gate.check({**GOOD, "p95_ms": value}, gate.load(budgets), "till")
    assert not rows["passed"]["p95_ms"]
    assert rows["passed"]["megabytes"]


def test_the_border_passes(budgets):
    at_the_border = {"exact_match_low": 0.6, "megabytes": 40, "p95_ms": 300}
    assert gate.passes(at_the_border, gate.load(budgets), "till")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("till: {at_most: {p95_ms: fast}}", "till.at_most.p95_ms: Input should be a valid number"),
        ("till: {atmost: {p95_ms: 3}}", "till.atmost: Extra inputs are not permitted"),
        ("till: {}", "the profile 'till' asks for nothing"),
        ("till: {at_least: {x: 1}, at_most: {x: 2}}", "x has two budgets"),
        ("till: [", "is no YAML"),
        ("", "the file: Input should be a valid dictionary"),
        ("- a", "the file: Input should be a valid dictionary"),
    ],
)
def test_a_budget_file_that_is_wrong(tmp_path, text, what):
    path = tmp_path / "b.yaml"
    path.write_text(text)
    with pytest.raises(CourseError) as refused:
        gate.load(path)
    assert what in str(refused.value)


def test_missing_file_and_unknown_profile(budgets, tmp_path):
    with pytest.raises(CourseError, match="No such file"):
        gate.load(tmp_path / "none.yaml")
    with pytest.raises(CourseError, match="There is no profile 'phone': the budgets have till, watch"):
        gate.check(GOOD, gate.load(budgets), "phone")


def test_the_command_says_yes_no_and_why(budgets, tmp_path):
    private, public = package.make_keys(tmp_path / "keys")
    model = tmp_path / "model"
    model.mkdir()
    (model / "genai_config.json").write_text("{}")
    packed = package.pack(model, tmp_path / "desk", "desk", "1.0.0", "Apache-2.0", GOOD, {}, private)

    def gated(profile, folder=packed):
        command = [sys.executable, "-m", "slmops_lab", "gate", folder, "--budgets", budgets]
        return subprocess.run([*command, "--profile", profile, "--key", public], capture_output=True, text=True)

    done = gated("till")
    assert done.returncode == 0
    assert "desk 1.0.0 may go to 'till'." in done.stdout
    done = gated("watch")
    assert done.returncode == 1
    assert "NO  megabytes: 27 (at most 5)" in done.stdout
    assert done.stderr.strip() == "slmops: desk 1.0.0 may not go to 'watch': megabytes."
    (packed / "genai_config.json").write_text("{ }")
    done = gated("till")
    assert done.returncode == 1
    assert "genai_config.json was changed after it was signed" in done.stderr
