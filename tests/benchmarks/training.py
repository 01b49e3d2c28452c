"""Examples trained per second: the course's trainer against TRL's SFTTrainer with its defaults.

    python tests/benchmarks/training.py [--messages 32] [--rounds 3]

Both tune every weight of the same base model on the same messages, once, with the loss on the answer
only, in alternation, in this process; SFTTrainer keeps all its other defaults. Printed are the medians
and their ratio. Nothing else should run on the machine.
"""

import argparse
import statistics
import tempfile
import time

from slmops_lab import settings
from slmops_lab.task import data, encoding
from slmops_lab.training import base_model, trainer


def by_the_course(model, tokenizer, task, records):
    lessons = [encoding.encode(tokenizer, task.messages(r["text"]), task.write(r["answer"])) for r in records]
    trainer.train(model, tokenizer, lessons, num_train_epochs=1)


def by_trl(model, tokenizer, task, records):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [
        {"prompt": task.messages(r["text"]), "completion": [{"role": "assistant", "content": task.write(r["answer"])}]}
        for r in records
    ]
    with tempfile.TemporaryDirectory() as scratch:
        config = SFTConfig(
            scratch, num_train_epochs=1, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True
        )
        trainer = SFTTrainer(model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
        trainer.train()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    settings.start("support_desk", "smollm2-135m")
    desk = data.load(settings.dataset_folder("support_desk"))
    records = desk.train[: options.messages]
    ways = {"SFTTrainer": by_trl, "the course": by_the_course}
    seconds = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            model, tokenizer = base_model.open_model(base_model.fetch())  # each starts from the same weights
            started = time.perf_counter()
            way(model, tokenizer, desk.task, records)
            seconds[name].append(time.perf_counter() - started)
            del model
    rates = {name: len(records) / statistics.median(times) for name, times in seconds.items()}
    for name, rate in rates.items():
        print(f"{name}: {rate:.2f} examples per second")
    print(f"ratio {rates['the course'] / rates['SFTTrainer']:.2f}")


if __name__ == "__main__":
    main()
