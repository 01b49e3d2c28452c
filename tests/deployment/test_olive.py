import json
import math

import pytest
from lessons import CHATS

from slmops_lab import settings
from slmops_lab.deployment import olive, runtime
from slmops_lab.errors import CourseError


def test_the_shim_is_needed_for_these_versions():
    """When this fails, Olive and the model builder fit by themselves: delete slmops_lab/olive_shim.py."""
    assert olive.needed()


def test_the_shim_does_nothing_where_it_is_not_needed(monkeypatch):
    from onnxruntime_genai.models import builder

    monkeypatch.setattr(olive, "needed", lambda: False)
    before = builder.create_model
    olive.install()
    assert builder.create_model is before


@pytest.fixture
def workflow(tiny_folder, tmp_path):
    """The chapter's workflow file for the tiny model, two steps of tuning."""
    folder = tmp_path / "kitchen"
    folder.mkdir()
    chat = [*CHATS[0], {"role": "assistant", "content": "warm"}]
    (folder / "lessons.jsonl").write_text((json.dumps({"messages": chat}) + "\n") * 4)
    text = (settings.ROOT / "notebooks/olive_workflow.json").read_text()
    config = json.loads(text)
    config["input_model"]["model_path"] = str(tiny_folder)
    config["data_configs"][1]["load_dataset_config"]["model_name"] = str(tiny_folder)
    config["passes"]["tune"]["training_args"]["max_steps"] = 2
    return config, folder


def test_the_workflow_file_makes_a_model(workflow):
    made, metrics = olive.run(*workflow)
    assert isinstance(runtime.GenAIRuntime(made).generate(CHATS[0], 4), str)
    assert metrics["size-bytes"] > 0 and math.isfinite(metrics["latency-avg"]) and metrics["latency-avg"] > 0


def test_olive_that_fails_says_so(workflow):
    config, folder = workflow
    config["data_configs"][0]["load_dataset_config"]["data_files"] = "nowhere.jsonl"
    (folder / "out").mkdir()
    (folder / "out" / "model.onnx").write_text("left by an earlier run, which went well")
    with pytest.raises(
        CourseError, match=r"`olive run` ended with exit code \d+ and left no .*model.onnx: .*olive.log"
    ):
        olive.run(config, folder)
    with pytest.raises(CourseError, match="`olive frobnicate` ended with exit code 2"):
        olive.command("frobnicate", makes="x", folder=folder)
