"""The steps on other families of base models: tiny ones, randomly initialised, with the real tokenizer."""

import csv

import pytest

from slmops_lab.operations import steps

SHARED = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6, "num_attention_heads": 4}
SHARED |= {"num_key_value_heads": 2, "initializer_range": 0.1}  # so that words differ: the tables are not trained
FAMILIES = {  # name of transformers' configuration: what it has besides
    "Llama, a head of its own": ("Llama", {"tie_word_embeddings": False}),
    "Qwen2, biases": ("Qwen2", {"tie_word_embeddings": True}),
    "Qwen3, normed queries": ("Qwen3", {"tie_word_embeddings": True, "head_dim": 32}),
    "Phi3, fused matrices": ("Phi3", {"tie_word_embeddings": True}),
}
COLOURS = {"warm": ["red", "orange", "pink", "amber"], "cold": ["blue", "green", "teal", "cyan"]}


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    """A CSV file of 64 labelled messages and 8 without a label."""
    rows = [(f"paint {thing} {colour}", kind) for kind, of in COLOURS.items() for colour in of for thing in range(8)]
    rows += [(f"a {colour} boat", "") for of in COLOURS.values() for colour in of]
    file = tmp_path_factory.mktemp("csv") / "messages.csv"
    with open(file, "w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([("text", "category"), *rows])
    return file


def made(tokenizer, family, more, folder):
    import torch
    import transformers

    torch.manual_seed(0)
    # without a pad_token_id, which is the end token here: its row would be zeros, so that it is never the likeliest
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    config = getattr(transformers, f"{family}Config")(**SHARED, **more, **ends, vocab_size=len(tokenizer))
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_of_another_family_goes_the_whole_way(name, messages, tokenizer, tmp_path):
    from slmops_lab.deployment import runtime
    from slmops_lab.evaluation import generation
    from slmops_lab.task import data
    from slmops_lab.training import base_model

    base = made(tokenizer, *FAMILIES[name], tmp_path / "base")
    given = {"text_column": "text", "label_column": "category"}
    read = steps.run("import", [messages], tmp_path / "data", given).folder
    how = {"base": str(base), "epochs": 6, "learning_rate": 3e-3}
    teacher = steps.run("tune", [read], tmp_path / "teacher", how).folder
    labels = steps.run("label", [read, teacher], tmp_path / "labels", {"pool": 4, "least_sure": 0}).folder
    how = {"layers": 4, "steps": 40, "learning_rate": 3e-3}
    student = steps.run("distill", [read, teacher, labels], tmp_path / "student", how).folder
    model = steps.run("export", [student], tmp_path / "model").folder
    desk = data.load(read)
    chats = [desk.task.messages(record["text"]) for record in desk.test]
    learned = generation.generate(*base_model.open_model(student), chats, max_new_tokens=4, label=None)
    served = runtime.GenAIRuntime(model)
    said = [served.generate(chat, max_new_tokens=4) for chat in chats]
    assert said == learned and all(desk.task.read(text).answer for text in said), "four bits change nothing"
