import shutil
import sys

import numpy
import openai
import pytest
from serving import CHAT, TOKEN, InThread, Slow
from typer.testing import CliRunner

from slmops_lab import measure, settings
from slmops_lab.course import cli
from slmops_lab.deployment.endpoint import server
from slmops_lab.errors import CourseError
from slmops_lab.operations import bench


def test_every_request_of_a_load_is_accounted_for():
    with InThread(server.application(Slow(going=True), "m", TOKEN)) as served:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key=TOKEN, max_retries=0)
        rows = bench.load(client, "m", [CHAT] * 7, clients=3)
        assert list(rows["status"]) == [200] * 7 and (rows["ms"] > 0).all()
        assert rows.attrs["seconds"] > 0
        assert list(bench.load(client, "nobody", [CHAT] * 2, clients=1)["status"]) == [404, 404]


def test_speed_has_a_row_for_each_length_of_prompt(tiny_onnx):
    table, memory = bench.speed(tiny_onnx, prompts=(8, 40), answer=6, rounds=2)
    assert list(table.index) == [8, 40]
    assert (table[["first_ms", "per_second"]] > 0).all(axis=None)
    assert (table["slowest"] <= table["per_second"]).all() and (table["per_second"] <= table["fastest"]).all()
    assert memory > 1e7


def test_percentiles_and_bandwidth():
    assert bench.percentiles(range(101)) == pytest.approx({"p50": 50, "p95": 95, "p99": 99})
    assert bench.percentiles([7]) == {"p50": 7, "p95": 7, "p99": 7}
    assert bench.bandwidth(megabytes=16, rounds=1) > 1e8


def test_the_command_prints_what_it_measured(tiny_onnx):
    done = CliRunner().invoke(cli.app, ["bench", str(tiny_onnx), "--rounds", "1"])
    assert done.exit_code == 0, done.output
    assert "prompt of 32 tokens" in done.output and "of the memory's limit" in done.output


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits a process like this")
def test_a_device_has_the_cores_and_the_memory_it_was_given():
    with measure.FreshProcess() as process:
        assert process.call(measure.confine, 1, 400)
        assert process.call(settings.threads) == 1
        assert process.call(numpy.ones, 1_000).sum() == 1_000
        with pytest.raises(MemoryError):
            process.call(numpy.ones, 100_000_000)  # 800 MB


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits a process like this")
def test_a_model_runs_on_a_device_or_is_said_not_to_fit(tiny_onnx):
    facts = bench.on_device(tiny_onnx, [CHAT] * 2, cores=1, megabytes=600)
    assert facts["confined"] and facts["p95_ms"] > 0 and 10 < facts["peak_memory_mb"] < 600
    with pytest.raises(CourseError, match=r"^\S+ does not fit into 100 MB of memory\.$"):
        bench.on_device(tiny_onnx, [CHAT], cores=1, megabytes=100)


def test_another_failure_is_not_called_a_lack_of_memory(tmp_path, tiny_onnx):
    with pytest.raises(CourseError, match="is no ONNX Runtime GenAI model"):
        bench.on_device(tmp_path, [CHAT], cores=1, megabytes=600)
    for name in ("genai_config.json", "model.onnx"):
        shutil.copy(tiny_onnx / name, tmp_path)
    with pytest.raises(Exception) as failure:  # without weights and tokenizer
        bench.on_device(tmp_path, [CHAT], cores=1, megabytes=600)
    assert "does not fit" not in str(failure.value)


def test_reading_counts_the_logits(tiny_folder, tokenizer):
    few, many = (bench.reading(tiny_folder, tokens)["added"] for tokens in (64, 512))
    more = (512 - 64) * len(tokenizer) * 4
    assert 0.7 * more < many - few < 2 * more
