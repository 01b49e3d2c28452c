"""Seconds for the 450 test messages: batched answers of the library, as they were and as they are.

    python tests/benchmarks/answering.py [--messages 64] [--rounds 3] [--folder MODEL]

Formerly transformers' `generate` ran in batches of 32 of similar length, which read the constant beginning of each
prompt again and went on until the longest answer of a batch had ended. Both answer the same messages with the same
model (the tuned teacher where `make course` has made one, the base model else, whose answers run to the limit of 24
tokens), in alternation, in this process. Printed are medians, their ratio, the share of the speed of matrix products
of the same run, and how many texts are the same. Nothing else should run on the machine.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from training import matrix_speed

from slmops_lab import measure, settings
from slmops_lab.evaluation import generation
from slmops_lab.task import data, encoding
from slmops_lab.training import base_model

LIMIT, ALL = 24, 450


@torch.inference_mode()
def formerly(model, tokenizer, chats):
    """The texts, as `generation.generate` made them at commit c6ae1d0."""
    prompts = [encoding.prompt_ids(tokenizer, chat) for chat in chats]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    texts = [""] * len(prompts)
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, states: (states[0].contiguous(),))
    for start in range(0, len(order), 32):
        chosen = order[start : start + 32]
        batch = tokenizer.pad({"input_ids": [prompts[i] for i in chosen]}, return_tensors="pt")
        sequences = model.generate(**batch, max_new_tokens=LIMIT, do_sample=False)
        for row, i in enumerate(chosen):
            texts[i] = tokenizer.decode(sequences[row, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    hook.remove()
    measure.give_back()
    return texts


def operations(model, tokenizer, chats, texts):
    """Floating-point operations of one pass over prompts and answers, the shared beginning once."""
    prompts = [encoding.prompt_ids(tokenizer, chat) for chat in chats]
    shared = len(generation._shared(prompts))
    answers = [len(tokenizer(text).input_ids) + 1 for text in texts]
    table = model.get_input_embeddings().weight.numel()
    body = sum(p.numel() for p in model.parameters()) - table
    read = shared + sum(len(prompt) - shared for prompt in prompts) + sum(answers)
    return 2 * body * read + 2 * table * sum(answers)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    run = settings.start("support_desk", "smollm2-135m")
    desk = data.load(run.dataset)
    teacher = run.artifacts / "teacher"
    folder = options.folder or (teacher if teacher.is_dir() else base_model.fetch())
    model, tokenizer = base_model.open_model(folder, "bfloat16" if settings.fast_bf16() else "float32")
    chats = [desk.task.messages(record["text"]) for record in desk.test[: options.messages]]
    ways = {
        "as it was": lambda: formerly(model, tokenizer, chats),
        "as it is": lambda: generation.generate(model, tokenizer, chats, LIMIT, label=None),
    }
    seconds, said, speeds = {name: [] for name in ways}, {}, []
    for _ in range(options.rounds):
        for name, answer in ways.items():
            speeds.append(matrix_speed(model.config, rows=2000, seconds=1.0))
            started = time.perf_counter()
            said[name] = answer()
            seconds[name].append(time.perf_counter() - started)
    for name, times in seconds.items():
        print(f"{name}: {ALL / len(chats) * statistics.median(times):.1f} s for {ALL} messages")
    ratio = statistics.median(after / before for before, after in zip(*seconds.values(), strict=True))
    print(f"it takes {ratio:.2f} of the time that it took (median of the rounds' ratios)")
    limit = operations(model, tokenizer, chats, said["as it is"]) / statistics.median(speeds)
    print(f"{limit / statistics.median(seconds['as it is']):.0%} of the speed of matrix products")
    same = sum(a == b for a, b in zip(*said.values(), strict=True))
    print(f"{same} of {len(chats)} texts are the same")


if __name__ == "__main__":
    main()
