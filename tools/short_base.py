"""A base model for quick runs: a third of the layers of the real one, briefly repaired. Prints its folder.

python tools/short_base.py

Tests execute chapters 2 to 4 on it: everything in them is real but three times faster, and the tokenizer and
the widths stay. It is made once (about two minutes) and kept beside the real one. No learner gets to see it: it has
lost most of what the base model knows, so nothing measured on it says anything about the course's model.
"""

import random
import sys
from pydoc_data import topics  # English prose that every Python brings

import torch
from filelock import FileLock
from torch.nn.functional import cosine_similarity, kl_div, log_softmax
from tqdm import tqdm

from slmops_lab import settings
from slmops_lab.files import atomic_folder, sha256_of
from slmops_lab.task import data
from slmops_lab.training import base_model, compression

LAYERS, STEPS, BATCH, LENGTH, RATE = 10, 80, 8, 96, 1.5e-3


def passages(tokenizer):
    """Tensor (passages, LENGTH) of token ids: documentation and unlabelled messages, no answer to any of them."""
    messages = [record["text"] for record in data.load(settings.dataset_folder("support_desk")).pool[:800]]
    ids = tokenizer("\n".join([*topics.topics.values(), *messages]))["input_ids"]
    return torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)


def repair(student, teacher, kept, texts):
    """Bring the states of the student's layers, and what it says next, near the teacher's."""
    learned = [weight for weight in student.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.15)
    choose = random.Random(0)
    for _ in tqdm(range(STEPS), desc="short base", disable=None):
        batch = texts[choose.sample(range(len(texts)), BATCH)]
        with torch.no_grad():
            told = teacher(batch, output_hidden_states=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.fast_bf16()):
            said = student(batch, output_hidden_states=True)
        wanted = [*(told.hidden_states[layer] for layer in kept[1:]), told.hidden_states[-1]]
        pairs = zip(said.hidden_states[1:], wanted, strict=True)
        apart = [1 - cosine_similarity(a.float(), b.float(), dim=-1).mean() for a, b in pairs]
        ours, theirs = (log_softmax(out.logits.float(), -1).flatten(0, 1) for out in (said, told))
        doubt = kl_div(ours, theirs, log_target=True, reduction="batchmean")
        (doubt + 2 * (sum(apart) / len(apart) + apart[-1])).backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def make(folder):
    """Write the short model into an empty folder."""
    settings.set_seed(0)
    real = base_model.fetch()
    teacher, tokenizer = base_model.open_model(real, "bfloat16" if settings.fast_bf16() else "float32")
    kept = compression.spread(teacher.config.num_hidden_layers, LAYERS)
    student = compression.keep_layers(base_model.open_model(real)[0], kept).train()
    student.get_input_embeddings().weight.requires_grad_(False)
    repair(student, teacher, kept, passages(tokenizer))
    student.get_input_embeddings().weight.requires_grad_(True)
    student.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main():
    target = settings.home() / f"smollm2-135m-short-{sha256_of(__file__)[:8]}"  # another recipe, another model
    settings.home().mkdir(parents=True, exist_ok=True)
    with FileLock(settings.home() / ".short.lock"):
        if not (target / "config.json").is_file():
            print("Making a short base model for quick runs (about two minutes) ...", file=sys.stderr, flush=True)
            with atomic_folder(target) as folder:
                make(folder)
    print(target)


if __name__ == "__main__":
    main()
