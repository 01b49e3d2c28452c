import math

import numpy
import pytest
from typer.testing import CliRunner

from slmops_lab.course import cli
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


def test_numbers_of_numpy_are_numbers(budgets):
    measured = {"exact_match_low": numpy.float32(0.7), "megabytes": numpy.int64(27), "p95_ms": numpy.float64(80)}
    assert gate.passes(measured, gate.load(budgets), "till")
    assert not gate.passes({**measured, "megabytes": numpy.bool_(True)}, gate.load(budgets), "till")


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
        ("till: {at_most: {p95_ms: yes}}", "till.at_most.p95_ms: Input should be a valid number"),
        ("till: {at_most: {p95_ms: .inf}}", "till.at_most.p95_ms: Input should be a finite number"),
        ("till: {at_least: {x: .nan}}", "till.at_least.x: Input should be a finite number"),
        (
            "till: {at_most: {x: 1}}\ntill: {at_most: {x: 2}}",
            "is no YAML that can be used: 'till' stands there",
        ),
        ("till:\n  at_most: {x: 1, x: 2}", ", line 2, is no YAML that can be used: 'x' stands there twice"),
        ("till:\n  at_most: [", ", line 2, is no YAML that can be used: expected the node content"),
        ("[" * 3_000, "b.yaml is no YAML that can be used: maximum recursion depth"),
        ("till: \x01", "b.yaml is no YAML that can be used: unacceptable character"),
        ("{}", "b.yaml has no profile: give one per kind of device"),
        ("", "the file: Input should be a valid dictionary"),
        ("- a", "the file: Input should be a valid dictionary"),
    ],
)
def test_a_budget_file_that_is_wrong(tmp_path, text, what):
    path = tmp_path / "b.yaml"
    path.write_text(text)
    with pytest.raises(CourseError) as refused:
        gate.load(path)
    assert what in str(refused.value) and "\n" not in str(refused.value)


def test_missing_file_and_unknown_profile(budgets, tmp_path):
    (tmp_path / "utf-16.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(CourseError, match="is no YAML that can be used: 'utf-8' codec"):
        gate.load(tmp_path / "utf-16.yaml")
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
        options = ["--budgets", budgets, "--profile", profile, "--key", public]
        return CliRunner().invoke(cli.app, ["gate", *map(str, [folder, *options])])

    done = gated("till")
    assert done.exit_code == 0
    assert "desk 1.0.0 may go to 'till'." in done.stdout
    done = gated("watch")
    assert done.exit_code == 1
    assert "NO  megabytes: 27 (at most 5)" in done.stdout
    assert str(done.exception) == "desk 1.0.0 may not go to 'watch': megabytes."
    (packed / "genai_config.json").write_text("{ }")
    done = gated("till")
    assert done.exit_code == 1
    assert "genai_config.json was changed after it was signed" in str(done.exception)
