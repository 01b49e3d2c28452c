"""Seconds a lesson of training, each with its share of what the processor's matrix products allow.

    python tests/benchmarks/training.py [--messages 16] [--rounds 3] [--only NAME ...] [--former CHECKOUT]

All ways train on the same messages, one pass in batches of four (if not said), in alternation, from the same weights;
SFTTrainer keeps its defaults (batches of eight), but for bf16 where the processor has none. --former adds the trainer
of commit c6ae1d0 out of a checkout of it (git worktree add CHECKOUT c6ae1d0), in a process of its own. The limit is
the speed of matrix products of the shapes that a step has, measured in the same run; the share is what a way's
products would take at that speed, divided by its time. Printed are medians. Nothing else should run on the machine.

Seconds a lesson on 89 tokens (75 with phrases), full tuning of the base first:
    processor with bf16 (AVX512): former trainer 0.468; limit 0.142
    processor without (AVX2, 99 GFLOP/s), medians of three, in brackets the share of the limit: former trainer 1.48
        (40 %), SFTTrainer 1.70 (35 %), this one 1.12 (53 %), with phrases 0.98 (49 %) and its upper 20 layers 0.65
        (50 %). LoRA: former 1.39 (29 %), this one 1.00 (41 %), 15 upper layers with phrases 0.44 (38 %). Ten layers:
        former 0.55 (39 %), this one 0.41 (53 %), with phrases 0.40 (42 %). The limit is 0.60 for full tuning.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas
import torch
from peft import LoraConfig

from slmops_lab import measure, settings
from slmops_lab.task import data, encoding
from slmops_lab.training import adapters, base_model, compression, frozen, trainer

BATCH = 4
LORA = {"r": 8, "lora_alpha": 32, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"]}
LORA["target_modules"] += ["down_proj"]


def by_trl(model, tokenizer, task, records):
    """Seconds of one pass."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [
        {"prompt": task.messages(r["text"]), "completion": [{"role": "assistant", "content": task.write(r["answer"])}]}
        for r in records
    ]
    usual = {"num_train_epochs": 1, "use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}
    usual["bf16"] = settings.fast_bf16()  # its default is True, several times slower where no processor does it
    with tempfile.TemporaryDirectory() as scratch:
        config = SFTConfig(scratch, **usual)
        trained = SFTTrainer(model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        started = time.perf_counter()
        trained.train()
    return time.perf_counter() - started


# What a former way runs; the course's modules lay flat in one folder then.
FORMER = """
import sys
from slmops_lab import base_model, compress, data, settings, training
run = settings.start("support_desk", "smollm2-135m")
desk = data.load(run.dataset)
model, tokenizer = base_model.open_model(base_model.fetch())
way, count, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if way == "student":
    model = compress.keep_layers(model, compress.spread(30, 10))
if way == "LoRA":
    from peft import LoraConfig, get_peft_model
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **{lora}))
records = desk.train[:count]
lessons = [training.encode(tokenizer, desk.task.messages(r["text"]), desk.task.write(r["answer"])) for r in records]
how = {"num_train_epochs": 1, "per_device_train_batch_size": batch, "label": None}
print(training.train(model, tokenizer, lessons, **how).attrs["seconds"])
"""


def by_the_former(checkout, way, count):
    """Seconds of one pass of the trainer of another checkout."""
    command = [sys.executable, "-c", FORMER.replace("{lora}", repr(LORA)), way, str(count), str(BATCH)]
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def prepared(model, tokenizer, task, records, how):
    """(model, tokenizer, lessons) of one of the course's ways."""
    if how.get("student"):
        model = compression.keep_layers(model, compression.spread(model.config.num_hidden_layers, how["student"]))
    if how.get("phrases"):
        model, tokenizer = compression.add_phrases(model, tokenizer, task.phrases(values=True))
    if how.get("lora"):
        layers = list(range(how.get("depth", 0), model.config.num_hidden_layers))
        model = adapters.attach(model, LoraConfig(task_type="CAUSAL_LM", layers_to_transform=layers, **LORA))
    chats = [(task.messages(r["text"]), task.write(r["answer"])) for r in records]
    return model, tokenizer, [encoding.encode(tokenizer, chat, answer) for chat, answer in chats]


def by_the_course(model, tokenizer, lessons, depth=0, batch=BATCH, **_):
    """Seconds of one pass; the states of frozen layers are there already, as in a second trial."""
    usual = {"num_train_epochs": 1, "per_device_train_batch_size": batch, "label": None}
    if not depth:
        return trainer.train(model, tokenizer, lessons, **usual).attrs["seconds"]
    lower = frozen.read(model, tokenizer, lessons, depth)
    with frozen.upper(model, lower):
        return trainer.train(model, tokenizer, lower.examples, **usual).attrs["seconds"]


WAYS = {
    "former: full": {"former": "full"},
    "former: LoRA": {"former": "LoRA", "lora": True},
    "former: student of 10 layers": {"former": "student", "student": 10},
    "SFTTrainer": {},
    "full": {},
    "full, batches of 8": {"batch": 8},
    "full, phrases": {"phrases": True},
    "upper 20 layers, phrases": {"phrases": True, "depth": 10},
    "LoRA": {"lora": True},
    "LoRA, upper 15 layers, phrases": {"phrases": True, "depth": 15, "lora": True},
    "student of 10 layers": {"student": 10},
    "student of 10 layers, phrases": {"student": 10, "phrases": True},
}


def operations(config, lessons, how):
    """Floating-point operations a lesson of matrix products with weights: forward, back, and the weights' own."""
    tokens = statistics.mean(len(lesson["input_ids"]) for lesson in lessons)
    answer = statistics.mean(sum(label != encoding.IGNORE for label in lesson["labels"]) for lesson in lessons)
    keys = config.hidden_size * config.num_key_value_heads // config.num_attention_heads
    layer = config.hidden_size * (2 * config.hidden_size + 2 * keys + 3 * config.intermediate_size)
    layers = how.get("student", config.num_hidden_layers) - how.get("depth", 0)
    return (4 if how.get("lora") else 6) * layer * layers * tokens + 4 * config.hidden_size * config.vocab_size * answer


def matrix_speed(config, rows=356, seconds=3.0):
    """Operations a second of the largest products of a step: median over `seconds`, in the trainer's arithmetic."""
    kind = torch.bfloat16 if settings.fast_bf16() else torch.float32
    left = torch.randn(rows, config.hidden_size, dtype=kind)
    right = torch.randn(config.hidden_size, config.intermediate_size, dtype=kind)
    speeds, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        for _ in range(5):
            left @ right
        speeds.append(5 * 2 * left.numel() * config.intermediate_size / (time.perf_counter() - started))
    return statistics.median(speeds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(WAYS))
    parser.add_argument("--former", type=Path)
    options = parser.parse_args()
    options.only = options.only or [name for name in WAYS if options.former or "former" not in WAYS[name]]
    settings.start("support_desk", "smollm2-135m")
    desk = data.load(settings.dataset_folder("support_desk"))
    records = desk.train[: options.messages]
    seconds, speeds, work = {name: [] for name in options.only}, [], {}
    for _ in range(options.rounds):
        for name in options.only:
            model, tokenizer = base_model.open_model(base_model.fetch())  # each starts from the same weights
            config = model.config
            speeds.append(matrix_speed(config))
            if name == "SFTTrainer":
                took = by_trl(model, tokenizer, desk.task, records)
            model, tokenizer, lessons = prepared(model, tokenizer, desk.task, records, WAYS[name])
            if "former" in WAYS[name]:
                took = by_the_former(options.former, WAYS[name]["former"], len(records))
            elif name != "SFTTrainer":
                took = by_the_course(model, tokenizer, lessons, **WAYS[name])
            work[name] = operations(config, lessons, WAYS[name])
            seconds[name].append(took / len(records))
            del model
            measure.give_back()
    speed = statistics.median(speeds)
    print(f"matrix products: {speed / 1e9:.0f} GFLOP/s")
    rows = []
    for name, times in seconds.items():
        limit = work[name] / speed
        median = statistics.median(times)
        rows.append((name, median, min(times), max(times), limit, f"{limit / median:.0%}"))
    table = pandas.DataFrame(rows, columns=["way", "s a lesson", "least", "most", "limit", "share"]).set_index("way")
    for other in (*(name for name in WAYS if "former" in WAYS[name]), "SFTTrainer", "full"):
        if other in table.index:
            table[f"times {other}"] = table.loc[other, "s a lesson"] / table["s a lesson"]
    print(table.round(3).to_string())
    print(f"peak memory of this process: {measure.peak_memory() / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
