"""Messages labelled per second: the local teacher against plain model.generate, message by message.

    python tests/benchmarks/labelling.py [--messages 64] [--rounds 3]

Both answer the same messages with the same model (the tuned teacher where `make course` has made
one, the base model else), in alternation, in this process; printed are the medians and their ratio.
Nothing else should run on the machine.
"""

import argparse
import statistics
import time

from slmops_lab import settings
from slmops_lab.task import data
from slmops_lab.training import base_model, teachers


def one_by_one(model, tokenizer, task, texts):
    """What most scripts do: a list of answers."""
    answers = []
    for text in texts:
        prompt = tokenizer(prompt_text(tokenizer, task, text), return_tensors="pt", add_special_tokens=False)
        out = model.generate(**prompt, max_new_tokens=64, do_sample=False)
        answers.append(tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
    return answers


def prompt_text(tokenizer, task, text):
    return tokenizer.apply_chat_template(task.messages(text), tokenize=False, add_generation_prompt=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    run = settings.start("support_desk", "smollm2-135m")
    desk = data.load(run.dataset)
    folder = run.artifacts / "teacher"
    plain, tokenizer = base_model.open_model(folder if folder.is_dir() else base_model.fetch())
    texts = [record["text"] for record in desk.pool[: options.messages]]
    teacher = teachers.LocalTeacher(plain, tokenizer)
    seconds = {"message by message": [], "local teacher": []}
    said = {}
    for number in range(options.rounds + 1):  # the first round warms up
        for name, answer in {
            "message by message": lambda: one_by_one(plain, tokenizer, desk.task, texts),
            "local teacher": lambda: [one.text for one in teacher.ask(desk.task, texts)],
        }.items():
            started = time.perf_counter()
            said[name] = answer()
            if number:
                seconds[name].append(time.perf_counter() - started)
    rates = {name: len(texts) / statistics.median(times) for name, times in seconds.items()}
    for name, rate in rates.items():
        print(f"{name}: {rate:.2f} messages per second")
    print(f"ratio {rates['local teacher'] / rates['message by message']:.2f}")
    same = sum(a == b for a, b in zip(*said.values(), strict=True))
    print(f"{same} of {len(texts)} answers are the same")


if __name__ == "__main__":
    main()
