"""The files that other people's machinery reads: workflows, the Containerfile, alerting rules."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import promql_parser
import pytest
import yaml
from packaging.utils import canonicalize_name
from prometheus_client.parser import text_string_to_metric_families

from slmops_lab.deployment.endpoint import observability
from slmops_lab.settings import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CONTAINERFILE = (ROOT / "Containerfile").read_text(encoding="utf-8")
ALERTS = yaml.safe_load((ROOT / "notebooks" / "alerts.yaml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]


def lint(*files):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", *files]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_workflows_are_what_github_expects():
    assert WORKFLOWS
    done = lint(*WORKFLOWS)
    assert done.returncode == 0, done.stdout


def test_a_broken_workflow_is_found(tmp_path):
    text = WORKFLOWS[0].read_text(encoding="utf-8")
    broken = tmp_path / "broken.yml"
    broken.write_text(text.replace("runs-on:", "runs_on:"))
    assert lint(broken).returncode != 0


def test_actions_are_pinned_to_a_version_and_jobs_may_not_run_for_ever():
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}, path.name
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"] <= 180
            assert all("@v" in step["uses"] for step in job["steps"] if "uses" in step)


def steps(name):
    """The shell lines of a workflow, and what starts it."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8"))
    lines = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    return lines, set(workflow[True])  # YAML 1.1 reads `on` as true


def test_the_release_gate_says_which_product_it_lets_through():
    (gate,) = [line for line in steps("release.yml")[0] if "slmops gate" in line]
    options = re.findall(r"--\w+", gate)
    assert sorted(options) == ["--budgets", "--key", "--name", "--profile"]
    assert "${{" not in gate, "an input in a shell line is code"


def test_what_is_too_slow_for_every_change_runs_once_a_week():
    lines, when = steps("weekly.yml")
    assert {"make test", "make weekly", "make course"} <= set(lines) and "schedule" in when
    assert "schedule" not in steps("course.yml")[1]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    called = {line.split()[1] for path in WORKFLOWS for line in steps(path.name)[0] if line.startswith("make ")}
    assert called <= set(targets)


def hadolint(path):
    command = shutil.which("hadolint", path=Path(sys.executable).parent)
    if not command:
        pytest.skip("hadolint has no wheel for this machine")
    return subprocess.run([command, str(path)], capture_output=True, text=True, timeout=300)


def test_the_containerfile_is_clean(tmp_path):
    done = hadolint(ROOT / "Containerfile")
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "Containerfile"
    broken.write_text("FROM python:latest\nRUN cd /tmp && apt-get install curl\n")
    assert hadolint(broken).returncode != 0


def test_the_image_installs_pinned_packages_and_runs_as_nobody_special():
    text = CONTAINERFILE
    pins = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    installed = re.search(r"--constraint requirements.lock \\\n(.*)", text)[1].split()
    assert len(installed) > 5
    assert all(f"\n{name}==" in pins for name in installed)
    assert re.search(r"^USER \d+$", text, re.MULTILINE)


ENDPOINT = """
import sys
before = set(sys.modules)  # what this environment loads into every Python
import onnxruntime_genai
import slmops_lab.course.cli
from slmops_lab.deployment import runtime
print(*{name.partition(".")[0] for name in set(sys.modules) - before if getattr(sys.modules[name], "__file__", None)})
"""


def required(names):
    """Distributions that come with these, themselves included."""
    found, open_ones = set(), list(names)
    while open_ones:
        name = re.match(r"[\w.-]+", open_ones.pop())[0]
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # another system's
            continue
        if (name := canonicalize_name(name)) not in found:
            found.add(name)
            open_ones += [need for need in needs if "extra ==" not in need]
    return found


def test_the_endpoint_imports_nothing_that_the_image_lacks():
    done = subprocess.run([sys.executable, "-c", ENDPOINT], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    carried = required(re.search(r"--constraint requirements.lock \\\n(.*)", CONTAINERFILE)[1].split())
    sources = importlib.metadata.packages_distributions()
    imported = {name for name in done.stdout.split() if not name.startswith("_sysconfigdata")} - sys.stdlib_module_names
    imported -= {"slmops_lab", "email_validator", "sniffio"}  # the last two are used only where they are installed
    lacking = {name for name in imported if not {canonicalize_name(d) for d in sources.get(name, [])} & carried}
    assert {"fastapi", "onnxruntime_genai"} <= imported and not lacking, lacking


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts_are_promql_about_metrics_that_exist(rule):
    assert promql_parser.parse(rule["expr"])
    metrics = observability.Metrics()
    metrics.done("m", 1.0, 0.1, 5, 5, "timeout")
    metrics.refused("queue_full")
    samples = [s for family in text_string_to_metric_families(metrics.text().decode()) for s in family.samples]
    known = {sample.name: set() for sample in samples}
    for sample in samples:
        known[sample.name] |= set(sample.labels)
    used = re.findall(r"\b((?:slmops|gen_ai|process)_\w+)(?:\{(\w+))?", rule["expr"])
    assert used
    for name, label in used:
        assert name in known, f"no metric is called {name}"
        assert not label or label in known[name], f"{name} has no label {label}"


def test_a_broken_rule_would_be_found():
    with pytest.raises(ValueError):
        promql_parser.parse("sum(rate(a[5m])) > ")


def test_the_book_is_published_without_a_run():
    lines, starts = steps("pages.yml")
    assert lines == ["make book", "make jupyter-book"] and starts == {"push", "workflow_dispatch"}


def test_binder_installs_the_lock_and_fetches_the_model():
    told = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text(encoding="utf-8"))
    assert {"python=3.11", "pip"} <= set(told["dependencies"]) and told["channels"] == ["conda-forge"]
    script = ROOT / ".binder" / "postBuild"
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash" and "set -euo pipefail" in lines and os.access(script, os.X_OK)
    assert lines[-2].endswith("-r requirements.lock -e .") and lines[-1] == "slmops fetch"


def test_a_container_for_editors_sets_up_as_the_readme_does():
    import json

    told = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    made = subprocess.run(["make", "-n", ".venv/.ready"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0 and told["postCreateCommand"].startswith("make .venv/.ready && .venv/bin/slmops fetch")
