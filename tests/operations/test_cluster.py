"""A Ray cluster of two node processes on this machine: labels, sweeps, serving; and when parts of it go."""

import importlib.util
import json
import math
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace

import httpx
import openai
import psutil
import pydantic
import pytest
import torch
from conftest import COLOURS, write_records
from optuna.distributions import CategoricalDistribution, FloatDistribution
from serving import BEARER, CHAT, TOKEN, until
from typer.testing import CliRunner

from slmops_lab import settings
from slmops_lab.course import cli
from slmops_lab.deployment.endpoint import launch
from slmops_lab.errors import CourseError
from slmops_lab.operations import steps, work
from slmops_lab.operations.cluster import driver, labelling, scaling, serving, sweeps
from slmops_lab.task import schema
from slmops_lab.training import base_model, recipe, teachers

FEW = 2  # messages in a batch, so that there are many batches


@pytest.fixture(scope="module")
def nodes():
    """A cluster of two machines with a core each, two processes of this one."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
    cluster.small = small
    cluster.second = cluster.add_node(**small)
    cluster.on = f"ray:{cluster.address}"
    yield cluster
    with suppress(Exception):
        cluster.shutdown()


@pytest.fixture(scope="module")
def taught(tiny_folder, tmp_path_factory):
    """Folder of the tiny model, taught to say that everything is warm."""
    threads, folder = torch.get_num_threads(), tmp_path_factory.mktemp("taught") / "teacher"
    torch.set_num_threads(1)
    model, tokenizer = base_model.open_model(tiny_folder)
    task = schema.Task(schema.Schema(**SCHEMA))
    encoded = [recipe.example_of(task, record, tokenizer) for record in RECORDS[::4]]
    batch = tokenizer.pad([{"input_ids": one["input_ids"]} for one in encoded], return_tensors="pt")
    width = batch["input_ids"].shape[1]
    labels = torch.tensor([[-100] * (width - len(one["labels"])) + one["labels"] for one in encoded])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(300):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.08:
            break
    torch.set_num_threads(threads)
    assert loss < 0.1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, task


SCHEMA = {"name": "colours", "fields": {"kind": {"type": "enum", "values": ["warm", "cold"]}}}
TEXTS = [f"{'please ' * (i % 7)}paint boat {i} {c}" for i in range(8) for c in COLOURS]
RECORDS = [{"id": str(i), "text": text, "answer": {"kind": "warm"}} for i, text in enumerate(TEXTS)]


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def local(taught, one_thread):
    """What the teacher says here, in the batches that it makes here, on one thread."""
    folder, task = taught
    model, tokenizer = base_model.open_model(folder)
    return teachers.LocalTeacher(recipe.as_reader(model), tokenizer, batch_size=FEW).ask(task, TEXTS)


def asking(taught, nodes, store):
    return labelling.ClusterTeacher(taught[0], store, nodes.on, batch_size=FEW)


def written(store):
    """{file: when it was written} of the batches that are kept."""
    return {file.name: file.stat().st_mtime_ns for file in store.glob("*.json")}


def workers(node):
    """Processes of a node that answer."""
    (raylet,) = node.all_processes["raylet"]
    found = []
    for one in psutil.Process(raylet.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            found += [one] if "MapWorker" in " ".join(one.cmdline()) else []
    return found


def meanwhile(store, harm, after=2):
    """Do harm when so many batches are kept; returns those, and the thread."""
    kept = {}

    def wait():
        until(lambda: len(written(store)) >= after)
        kept.update(written(store))
        harm()

    thread = threading.Thread(target=wait)
    thread.start()
    return kept, thread


def test_without_ray_one_sentence_says_how_to_install_it(monkeypatch, taught, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "ray" else real(name, *_))
    sentence = re.escape(
        'Ray is not installed: install the course\'s extra for clusters with pip install -e ".[cluster]".'
    )
    folder, task = taught
    with pytest.raises(CourseError, match=f"^{sentence}$"):
        labelling.ClusterTeacher(folder, tmp_path).ask(task, TEXTS)
    with pytest.raises(CourseError, match=f"^{sentence}$"):
        sweeps.sweep(float, {"x": None}, 1)
    with pytest.raises(CourseError, match=f"^{sentence}$"):
        (tmp_path / "genai_config.json").write_text("{}")
        serving.serve(tmp_path, "ray", "127.0.0.1", 0, TOKEN, {})


def test_a_folder_called_ray_is_not_ray(monkeypatch, tmp_path):
    (tmp_path / "ray").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert importlib.util.find_spec("ray") is not None and not driver.installed()


def test_the_extra_is_what_the_sentence_names_and_not_pinned_with_the_rest():
    import tomllib

    extras = tomllib.loads((cli.settings.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(one.startswith("ray[data,tune,serve]==") for one in extras["cluster"]) and "cluster" in driver.INSTALL
    assert "\nray==" not in (cli.settings.ROOT / "requirements.lock").read_text()


@pytest.mark.parametrize("on", ["", "ray:", "ray:nowhere", "spark", "ray:host:port", "ray://10.0.0.1:10001"])
def test_a_place_that_is_none_is_said_to_be(on):
    with pytest.raises(CourseError, match="is no place to run: give ray, for this machine's cores, or ray:HOST:PORT"):
        driver.address_of(on)


def test_an_address_where_nobody_answers(taught, tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "installed", lambda: True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(CourseError, match=f"No Ray cluster answers at 127.0.0.1:{port}: start one there with 'ray st"):
        labelling.ClusterTeacher(taught[0], tmp_path, f"ray:127.0.0.1:{port}").ask(taught[1], TEXTS)
    assert time.monotonic() - begun < 20


def test_somebody_who_is_no_cluster_is_waited_for_in_vain_for_a_while_only(taught, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setattr(driver, "START", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        on = f"ray:127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(CourseError, match=r"did not let anybody in within 4 seconds: look at 'ray status' there\."):
            list(driver.run(on, labelling.answer_rows, {}))


def test_other_steps_do_not_run_on_a_cluster(tmp_path):
    with pytest.raises(CourseError, match="The step tune runs on one machine: on a cluster runs label"):
        steps.run("tune", [], tmp_path / "out", {}, work.Machines("ray"))
    told = CliRunner().invoke(cli.app, ["step", "tune", "--on", "ray", "--in", ".", "--out", "x"])
    assert told.exit_code == 2 and "--on" in told.output


def test_a_store_that_cannot_be_read_is_said_to_be(taught, tmp_path):
    asker = labelling.ClusterTeacher(taught[0], tmp_path, batch_size=FEW)
    plan = labelling._Plan(asker, taught[1], TEXTS)
    plan.file(next(iter(plan.batches))).write_text("[{")
    with pytest.raises(CourseError, match=r"cannot be read as answers: remove it, and they are asked for again\."):
        asker.ask(taught[1], TEXTS)


def test_a_folder_without_a_model(tmp_path, taught):
    with pytest.raises(CourseError, match="is no model folder: it has no config.json"):
        labelling.ClusterTeacher(tmp_path, tmp_path).ask(taught[1], TEXTS)


def test_the_law_of_amdahl():
    told = {"start": 10.0, "message": 0.5, "batch": 10, "driver": 0.1}
    assert scaling.seconds(100, 1, **told) == pytest.approx(10 + 50 + 0.1)
    assert scaling.seconds(100, 10, **told) == pytest.approx(10 + 5 + 0.1)
    assert scaling.seconds(100, 64, **told) == scaling.seconds(100, 10, **told), "there are ten batches only"
    assert scaling.seconds(10_000, 1000, **told) == pytest.approx(10 + 100 + 0.1), "the driver has 1,000 batches to see"
    table = scaling.table(10_000, [1, 64], **told)
    assert table.loc[1, "speed-up"] == table.loc[1, "used"] == 1 and table.loc[64, "speed-up"] < 64


@pytest.fixture
def folders(taught, tmp_path, monkeypatch):
    """Inputs of the step label: a data folder, and a teacher that a step has made."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "schema.json").write_text(json.dumps(SCHEMA))
    known = {"train": RECORDS[:8], "test": [RECORDS[8]], "pool": [{"id": r["id"], "text": r["text"]} for r in RECORDS]}
    for split, records in known.items():
        some = [record | {"id": f"{split}-{record['id']}"} for record in records]
        write_records(tmp_path / "data" / f"{split}.jsonl", [{**one, "text": f"{split} {one['text']}"} for one in some])
    copied = replace(
        steps.STEPS["tune"], function=lambda out: shutil.copytree(taught[0], out.folder, dirs_exist_ok=True) and None
    )
    monkeypatch.setitem(steps.STEPS, "copy", replace(copied, needs=(), may=(), settings=Nothing))
    monkeypatch.setitem(steps.MAKES, "copy", "teacher")
    return [tmp_path / "data", steps.run("copy", [], tmp_path / "teacher").folder]


class Nothing(pydantic.BaseModel):
    """No settings."""


def test_the_step_label_makes_the_same_folder_here_and_there(nodes, folders, tmp_path, one_thread):
    asked = ["step", "label", "--in", str(folders[0]), "--in", str(folders[1]), "--least-sure", "0.0", "--out"]
    there = CliRunner().invoke(cli.app, [*asked, str(tmp_path / "there"), "--on", nodes.on], catch_exceptions=False)
    assert f"asked: {len(TEXTS)}" in there.output and f"kept: {len(TEXTS)}" in there.output, there.output
    here = CliRunner().invoke(cli.app, [*asked, str(tmp_path / "here")], catch_exceptions=False)
    assert there.stdout.splitlines()[:-1] == here.stdout.splitlines()[:-1]
    there, here = ((tmp_path / place / "pool.jsonl").read_bytes() for place in ("there", "here"))
    assert there == here  # to the last bit of the confidence, in the order of the pool
    told = [json.loads((tmp_path / name / "step.json").read_text()) for name in ("there", "here")]
    assert told[0]["content"] == told[1]["content"] and told[0]["settings"] == told[1]["settings"]
    again = CliRunner().invoke(cli.app, [*asked, str(tmp_path / "there")], catch_exceptions=False)
    assert "kept, it was made before" in again.output, "where a step ran is not in its key"


def test_a_sweep_finds_what_the_function_says(nodes, tmp_path):
    def trial(given):
        import os
        import random

        import torch

        died = tmp_path / "died"
        if given["rank"] == 8 and not died.exists():
            died.write_text("once")
            os._exit(1)
        if given["rank"] == 2:
            raise ValueError("too small")
        (tmp_path / f"{given['rate']}").write_text(f"{torch.get_num_threads()} {os.environ.get('OMP_NUM_THREADS')}")
        return (given["rate"] - 0.3) ** 2 + given["rank"] + random.random()

    space = {"rate": FloatDistribution(0.1, 1.0, log=True), "rank": CategoricalDistribution([2, 4, 8])}
    told = sweeps.sweep(trial, space, 6, nodes.on, seed=3, store=tmp_path / "store")
    assert len(told) == 6 and list(told.columns) == ["rate", "rank", "value", "problem", "seconds"]
    assert (tmp_path / "died").exists() and set(told["rank"]) == {2, 4, 8}, "another seed would try all three"
    assert {file.read_text() for file in tmp_path.glob("0.*")} == {"1 1"}, "a core is one thread"
    for row in told.itertuples():
        if row.rank == 2:
            assert math.isnan(row.value) and row.problem == "ValueError: too small"
            continue
        settings.set_seed(3)
        assert row.value == trial({"rate": row.rate, "rank": row.rank}) and not row.problem
    again = sweeps.sweep(trial, space, 6, "ray:127.0.0.1:1", store=tmp_path / "store")
    assert again.equals(told), "trials that have ended are not tried again"


def test_sweeps_refuse_what_makes_no_sense(tmp_path):
    for given in ({"mode": "best"}, {"trials": 0}, {"space": {}}):
        with pytest.raises(CourseError, match="A sweep needs at least one setting to vary, one trial, and"):
            sweeps.sweep(float, **({"space": {"x": None}, "trials": 1} | given))
    failed = {"settings": {"x": 1}, "value": None, "problem": "ValueError: no", "seconds": 1.0}
    (tmp_path / "00000.json").write_text(json.dumps(failed))
    monkey = {"space": {"x": None}, "trials": 1, "store": tmp_path}
    with pytest.raises(CourseError, match="All 1 trials failed, the first with: ValueError: no"):
        sweeps.sweep(float, **monkey)
    (tmp_path / "00000.json").write_text(json.dumps(failed | {"value": 1.0}))
    with pytest.raises(CourseError, match="The store holds trials of another space: 'x' is not in this one"):
        sweeps.sweep(float, **(monkey | {"space": {"y": None}}))
    (tmp_path / "00000.json").write_text("{")
    with pytest.raises(CourseError, match="cannot be read: remove it, or name another store"):
        sweeps.sweep(float, **monkey)


GOOD = {"model": "tiny", "messages": CHAT, "max_tokens": 5}
BAD = {
    "no token": (GOOD, {}),
    "a wrong token": (GOOD, {"Authorization": "Bearer guessed"}),
    "another model": (GOOD | {"model": "huge"}, BEARER),
    "tools": (GOOD | {"tools": [{"type": "function"}]}, BEARER),
    "no messages": ({"model": "tiny"}, BEARER),
    "too long": (GOOD | {"messages": [{"role": "user", "content": "x " * 9_000}]}, BEARER),
    "too large": (GOOD | {"messages": [{"role": "user", "content": "x" * 300_000}]}, BEARER),
    "another host": (GOOD, BEARER | {"Host": "evil.example"}),
}


def test_it_serves_what_the_local_endpoint_serves(nodes, tiny_onnx, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")  # the cluster's address is this machine's, but none of the guard's
    options = ["--name", "tiny"]
    with launch.running(tiny_onnx, *options, token=TOKEN) as (here, _):
        with launch.running(tiny_onnx, *options, "--on", nodes.on, "--replicas", "2", token=TOKEN) as (there, _):
            said = [openai.OpenAI(base_url=url, api_key=TOKEN, max_retries=0) for url in (here, there)]
            whole = [one.chat.completions.create(**GOOD) for one in said]
            assert whole[0].choices == whole[1].choices and whole[0].usage.total_tokens == whole[1].usage.total_tokens
            streams = [list(one.chat.completions.create(**GOOD, stream=True)) for one in said]
            texts = ["".join(piece.choices[0].delta.content or "" for piece in pieces) for pieces in streams]
            assert texts[0] == texts[1] == whole[0].choices[0].message.content
            for name, (asked, headers) in BAD.items():
                told = [httpx.post(f"{url}/chat/completions", json=asked, headers=headers) for url in (here, there)]
                assert told[0].status_code == told[1].status_code and told[0].json() == told[1].json(), name
                assert 400 <= told[1].status_code < 500 and told[1].headers["x-request-id"]
            for path in ("/models", "/nothing"):
                told = [httpx.get(f"{url}{path}", headers=BEARER) for url in (here, there)]
                bodies = [re.sub(r'"created":\d+', "", one.text) for one in told]
                assert told[0].status_code == told[1].status_code and bodies[0] == bodies[1]
            taken = there.rsplit(":", 1)[1].removesuffix("/v1")
        with pytest.raises(httpx.ConnectError):  # it has ended, and the cluster has not
            httpx.get(f"{there}/models")
    assert taken.isdigit() and driver.answers(nodes.address)


def test_no_replica_for_everybody_without_a_token():
    with pytest.raises(CourseError, match="Without a token this serves 127.0.0.1 or .* only, not 0.0.0.0"):
        serving.serve("model", "ray", "0.0.0.0", 0, None, {})


def test_a_folder_without_a_model_is_not_served(tmp_path):
    with pytest.raises(CourseError, match="is no ONNX Runtime GenAI model: it has no genai_config.json"):
        serving.serve(tmp_path, "ray", "127.0.0.1", 0, TOKEN, {})


def test_killed_workers_and_machines_lose_nothing_that_was_finished(nodes, taught, local, tmp_path):
    store, killed = tmp_path / "store", []

    def kill_worker():
        killed.append(workers(nodes.head_node)[0])
        killed[0].kill()

    def kill_machine():
        nodes.remove_node(nodes.second, allow_graceful=False)

    asker = asking(taught, nodes, store)
    first, one = meanwhile(store, kill_worker)
    second, two = meanwhile(store, kill_machine, after=5)
    assert asker.ask(taught[1], TEXTS) == local
    one.join()
    two.join()
    assert killed and first.items() <= second.items() <= written(store).items(), "nothing was asked twice"
    assert 5 <= len(second) < len(written(store)) == len(TEXTS) / FEW
    assert set(asker.ask(taught[1], TEXTS)) == set(local) and not asker.times["batches"]


ASKS = """
import sys
from slmops_lab.operations.cluster import labelling
from slmops_lab.task import schema
folder, store, on, where, few, *texts = sys.argv[1:]
labelling.ClusterTeacher(folder, store, on, batch_size=int(few)).ask(schema.load(where), texts)
"""


def test_a_killed_driver_goes_on_and_a_cluster_that_goes_away_is_said_to(nodes, taught, local, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    store = tmp_path / "store"
    given = [str(taught[0]), str(store), nodes.on, str(tmp_path), str(FEW), *TEXTS]
    asker = subprocess.Popen([sys.executable, "-c", ASKS, *given], stderr=subprocess.PIPE)
    children = []
    until(lambda: len(written(store)) >= 2 or asker.poll() is not None)
    with suppress(psutil.Error):
        children = psutil.Process(asker.pid).children()
    asker.kill()
    assert children, asker.communicate()[1].decode()
    kept = written(store)
    assert 2 <= len(kept) < len(TEXTS) / FEW
    until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in children))
    more, thread = meanwhile(store, nodes.shutdown, after=len(kept) + 2)
    pattern = (
        rf"^The Ray cluster at {nodes.address} went away: start it again, .* (\d+) of 16 batches of answers are kept\.$"
    )
    with pytest.raises(CourseError, match=pattern):
        asking(taught, nodes, store).ask(taught[1], TEXTS)
    thread.join()
    assert kept.items() <= more.items() <= written(store).items()
    plan = labelling._Plan(asking(taught, nodes, store), taught[1], TEXTS)
    for key, chosen in plan.batches.items():
        said = labelling._read(plan.file(key))
        assert said is None or said == [local[i] for i in chosen]
