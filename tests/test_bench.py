import openai
import pytest
from test_serve import CHAT, TOKEN, InThread, Slow
from typer.testing import CliRunner

from slmops_lab import bench, cli, serve


def test_every_request_of_a_load_is_accounted_for():
    with InThread(serve.application(Slow(going=True), "m", TOKEN)) as served:
        client = openai.OpenAI(base_url=f"{served.url}/v1", api_key=TOKEN, max_retries=0)
        rows = bench.load(client, "m", [CHAT] * 7, clients=3)
        assert list(rows["status"]) == [200] * 7 and (rows["ms"] > 0).all()
        assert rows.attrs["seconds"] > 0
        assert list(bench.load(client, "nobody", [CHAT] * 2, clients=1)["status"]) == [404, 404]


def test_speed_has_a_row_for_each_length_of_prompt(tiny_onnx):
    table, memory = bench.speed(tiny_onnx, prompts=(8, 40), answer=6, rounds=2)
    assert list(table.index) == [8, 40]
    assert (table[["first_ms", "per_second"]] > 0).all(axis=None)
    assert memory > 1e7


def test_percentiles_and_bandwidth():
    assert bench.percentiles(range(101)) == pytest.approx({"p50": 50, "p95": 95, "p99": 99})
    assert bench.bandwidth(megabytes=16, rounds=1) > 1e8


def test_the_command_prints_what_it_measured(tiny_onnx):
    done = CliRunner().invoke(cli.app, ["bench", str(tiny_onnx), "--rounds", "1"])
    assert done.exit_code == 0, done.output
    assert "prompt of 32 tokens" in done.output and "of the memory's limit" in done.output
