"""Fixtures: a run in a folder of its own, and a tiny model with the real tokenizer."""

import json
import os
import sys
import threading
from pathlib import Path

import pytest
from endpoint import Endpoint, reply

from slmops_lab import settings
from slmops_lab.training import base_model

REPOSITORY = Path(__file__).resolve().parents[1]
GUARD = REPOSITORY / "tests" / "guard"

sys.path.append(str(GUARD))
from one_core import pytest_configure  # noqa: E402, F401


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Nothing that a test makes ends up in the checkout."""
    monkeypatch.setenv("SLMOPS_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("SLMOPS_BUILD", str(tmp_path / "build"))
    monkeypatch.setenv("PYTHONPATH", str(GUARD))  # processes that a test starts reach this machine only
    for name in os.environ:
        if name == "SLMOPS_PROFILE" or name.startswith(("SLMOPS_TEACHER", "OPENAI_", "AZURE_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def base_folder():
    """The real base model; `make test` has fetched it."""
    return base_model.fetch()


@pytest.fixture(scope="session")
def tokenizer(base_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_folder, padding_side="left")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory, tokenizer):
    """Folder of a randomly initialised Llama with 4 layers, 2.1 million weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,  # so that every matrix can have a rank of 16
        vocab_size=len(tokenizer),
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("tiny")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(tiny_folder):
    """(model, tokenizer), new for each test."""
    return base_model.open_model(tiny_folder)


COLOURS = {"red": "warm", "blue": "cold", "orange": "warm", "green": "cold"}


@pytest.fixture
def colours(tmp_path):
    """A small valid data folder: is a colour warm or cold, and which word names it?"""
    folder = tmp_path / "colours"
    folder.mkdir()
    fields = {
        "kind": {"type": "enum", "values": ["warm", "cold"]},
        "word": {"type": "copy", "nullable": True},
    }
    (folder / "schema.json").write_text(json.dumps({"name": "colours", "fields": fields}))
    for split, sentence in {"train": "I like {}", "test": "please paint it {}", "drift": "gimme {}"}.items():
        records = [
            {"id": f"{split}-{i}", "text": sentence.format(c), "answer": {"kind": k, "word": c}}
            for i, (c, k) in enumerate(COLOURS.items())
        ]
        write_records(folder / f"{split}.jsonl", records)
    pool = [{"id": f"pool-{i}", "text": f"a {c} boat"} for i, c in enumerate(COLOURS)]
    write_records(folder / "pool.jsonl", pool)
    return folder


def write_records(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


@pytest.fixture
def run(colours):
    return settings.start(str(colours), "tiny", "quick", 0)


@pytest.fixture
def guarded():
    """Environment in which every Python process refuses the network."""
    return os.environ | {"PYTHONPATH": str(GUARD)}


@pytest.fixture(scope="session")
def tiny_onnx(tiny_folder, tmp_path_factory):
    """The tiny model for ONNX Runtime GenAI, fp32."""
    from slmops_lab.deployment import export

    return export.to_onnx(tiny_folder, tmp_path_factory.mktemp("onnx") / "fp32", "fp32")


@pytest.fixture
def endpoint(monkeypatch):
    """Function: script, then -> a running `Endpoint`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    servers = []

    def start(*script, then=None):
        servers.append(Endpoint(script, then or reply()))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
