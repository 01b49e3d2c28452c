"""The graph as Azure gets it: rendered, read by the real SDK, sent to a resource manager inside this process."""

import json
import re
import shutil

import pytest
import yaml
from resource_manager import REFUSALS, ResourceManager, client_of
from typer.testing import CliRunner

from slmops_lab.course import cli
from slmops_lab.errors import CourseError
from slmops_lab.operations import cloud, cloud_pipeline, pipeline, steps

GRAPH = pipeline.load(pipeline.TEMPLATE)
GIVEN = dict.fromkeys(GRAPH.parameters) | {"text_column": "the text", "label_column": "category", "name": "desk"}
GIVEN |= {"html": True, "minutes": 15.0, "base": "smollm2-135m", "seed": 3, "version": "1.0.0"}


class Workspace(ResourceManager):
    """Takes components and jobs, knows the code already, and refuses a job where it is told how."""

    def answer(self, method, path, sent):
        if "/codes/" in path or "/environments/" in path or "/components/" in path:
            made = {"id": path, "name": path.rsplit("/", 1)[-1], "properties": (sent or {}).get("properties", {})}
            if method == "GET" and path.rstrip("/").endswith("/versions"):
                return 200, {
                    "value": [
                        made | {"id": f"{path}/1", "properties": {"codeUri": "https://here/code", "description": ""}}
                    ]
                }
            return 200, made | ({"properties": {"codeUri": "https://here/code"}} if "/codes/" in path else {})
        return super().answer(method, path, sent)


@pytest.fixture
def rendered(tmp_path):
    return cloud_pipeline.render(GRAPH, GIVEN | {"csv": "azureml:messages:1"}, tmp_path / "azure", "small")


def test_a_file_on_this_machine_is_named_by_its_place(tmp_path):
    (tmp_path / "messages.csv").write_text("the text,category\nhi,a\n", encoding="utf-8")
    file = cloud_pipeline.render(GRAPH, GIVEN | {"csv": str(tmp_path / "messages.csv")}, tmp_path / "azure", "small")
    job = cloud_pipeline.read(file)
    assert job.inputs["csv"].path == str(tmp_path / "messages.csv")


def components(rendered):
    return {f.stem: yaml.safe_load(f.read_text()) for f in (rendered.parent / "components").iterdir()}


def test_each_step_is_a_command_that_exists(rendered):
    made = components(rendered)
    assert list(yaml.safe_load(rendered.read_text())["jobs"]) == [*GRAPH.steps][:-1]  # signing stays at home
    for name, component in made.items():
        _, _, package, _, step, *words = re.split(r"\s+", component["command"])
        assert (package, step) == ("slmops_lab", GRAPH.steps[name].step)
        options = {word[2:].replace("-", "_") for word in words if word.startswith("--")} - {"in", "out"}
        assert options <= set(steps.STEPS[step].settings.model_fields)
    assert "--text-column '${{inputs.text_column}}'" in made["data"]["command"] and "--html" in made["data"]["command"]


def test_every_input_is_wired_and_given(rendered):
    jobs, made = yaml.safe_load(rendered.read_text())["jobs"], components(rendered)
    for name, job in jobs.items():
        assert set(job["inputs"]) == set(made[name]["inputs"])
        assert set(job["inputs"]) == set(re.findall(r"\$\{\{inputs\.(\w+)\}\}", made[name]["command"]))
        for value in job["inputs"].values():
            if found := re.fullmatch(r"\$\{\{parent\.jobs\.(\w+)\.outputs\.out\}\}", str(value)):
                assert list(jobs).index(found[1]) < list(jobs).index(name)


def test_the_environment_is_the_lock_and_the_code_goes_with_it(rendered):
    pins = yaml.safe_load((rendered.parent / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert "azure-ai-ml==1.35.2" in pins and all("==" in pin for pin in pins)
    assert (rendered.parent / "code/slmops_lab/operations/steps.py").is_file()


def test_the_sdk_reads_it_and_the_service_gets_it(rendered):
    manager = Workspace()
    assert cloud.submit(cloud_pipeline.read(rendered), client_of(manager))
    (job,) = [sent for method, path, sent in manager.calls if method == "PUT" and "/jobs/" in path]
    assert set(job["properties"]["jobs"]) == set(GRAPH.steps) - {"release"}
    assert job["properties"]["jobs"]["teacher"]["inputs"]["data"]["value"] == "${{parent.jobs.data.outputs.out}}"
    assert "private" not in json.dumps(manager.calls)


@pytest.mark.parametrize(("status", "code", "message", "said"), REFUSALS)
def test_each_refusal_says_what_to_do(rendered, status, code, message, said):
    manager = Workspace(refuse={"code": code, "message": message}, status=status)
    with pytest.raises(CourseError, match=f"did not take the job 'messages-to-model': .*{said}") as refusal:
        cloud.submit(cloud_pipeline.read(rendered), client_of(manager, retry_total=0))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"csv": "nowhere.csv"}, "There is no file nowhere.csv: give one, or the id of a data asset"),
        ({"minutes": -1}, "plan: minutes: Input should be greater than 0"),
    ],
)
def test_what_cannot_be_rendered_leaves_nothing(tmp_path, given, said):
    with pytest.raises(CourseError, match=said):
        cloud_pipeline.render(GRAPH, GIVEN | {"csv": "azureml:messages:1"} | given, tmp_path / "azure", "small")
    assert not (tmp_path / "azure").exists()


def test_a_rendered_file_that_was_harmed_is_refused(rendered):
    shutil.rmtree(rendered.parent / "components")
    with pytest.raises(CourseError, match="is no pipeline job that Azure's SDK takes"):
        cloud_pipeline.read(rendered)
    with pytest.raises(CourseError, match="There is no rendered pipeline"):
        cloud_pipeline.read(rendered.parent / "other.yml")


def test_from_the_command_line_nothing_is_sent_without_a_workspace(tmp_path, monkeypatch):
    for name in cloud.WORKSPACE:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "m.csv").write_text("text,label\n")
    asked = [
        "make",
        str(tmp_path / "m.csv"),
        "--text-column",
        "text",
        "--label-column",
        "label",
        "--out",
        str(tmp_path / "o"),
    ]
    told = CliRunner().invoke(cli.app, [*asked, "--azure", "small", "--submit"])
    assert "8 steps" in told.output and "Nothing was sent: no workspace is configured" in told.output
    with pytest.raises(CourseError, match="--submit sends what --azure COMPUTE writes"):
        CliRunner().invoke(cli.app, [*asked, "--submit"], catch_exceptions=False)
    assert not (tmp_path / "o" / "work").exists()
