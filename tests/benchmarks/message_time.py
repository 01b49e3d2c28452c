"""Where the time of one message goes in the deployed student, and how much of it the shortcuts save.

    python tests/benchmarks/message_time.py [--folder MODEL --whole MODEL_WITH_ALL_LOGITS] [--messages 40]

Without --folder a student is made in a temporary folder, in about a minute: 10 of the base model's 30 layers, not
trained, int4, with the logits of the last token (as it is deployed) and with all logits (as it was). Prints medians
in ms per message: a table of the steps of each way, then, ten messages by one way and ten by the other, whole answers
as they were made before (all logits, a new generator for each message, a step for each token) and as `generate` makes
them, their ratio, and the share of the limit that the memory's bandwidth sets for decoding. An answer that
nothing guides ends after 24 tokens, as many as a right one has. Nothing else should run on the machine.

Once measured (2 cores, AVX2), ms per message: an answer by the schema 180 as it was, 97 now (0.52); by a grammar 197
and 113 (0.60); free 193 and 160 (0.81). In the table, where models take turns, the schema's 249 were 122 of reading
and 116 of decoding; of the 109 with all shortcuts reading was 45, decoding 63.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy
import pandas

from slmops_lab import measure, settings
from slmops_lab.deployment import export, runtime
from slmops_lab.operations import bench
from slmops_lab.task import data
from slmops_lab.training import base_model, compression

TOKENS = 24
BLOCK = 11  # messages in a row by one way, the first warms up: no deployed model shares the processor's caches


def student(scratch):
    """(folder as deployed, folder with all logits) of a student that was not trained."""
    model, tokenizer = base_model.open_model(base_model.fetch())
    model = compression.keep_layers(model, compression.spread(30, 10))
    for part in (model, tokenizer):
        part.save_pretrained(scratch / "student")
    return [export.to_onnx(scratch / "student", scratch / str(all_), all_logits=all_) for all_ in (False, True)]


def guidance_of(task, text, kind):
    """What guides an answer: nothing, a grammar for this message, or the same schema for every message."""
    if kind == "schema":
        return "json_schema", json.dumps({**task.json_schema(), "x-guidance": {"whitespace_flexible": False}})
    return ("lark_grammar", task.grammar(text)) if kind == "grammar" else None


def by_hand(served, task, text, kind, forced=False, kept=None):
    """{step: ms, 'tokens': of the answer, 'steps': decoding steps}. kept: a dict that holds what is used again."""
    spent, began = {}, time.perf_counter()

    def done(step):
        nonlocal began
        spent[step] = 1e3 * (time.perf_counter() - began)
        began = time.perf_counter()

    ids = served.tokenizer.encode(served.prompt(task.messages(text)))
    done("tokenizing")
    guidance = guidance_of(task, text, kind)
    done("grammar text")
    known = 0
    if kept:
        generator, before = kept["generator"], kept["ids"]
        same = ids[: min(len(ids), len(before))] == before[: len(ids)]
        known = min(int(numpy.argmin(same)), len(ids) - 2)
        generator.rewind_to(known)
    else:
        params = served._og.GeneratorParams(served.model)
        params.set_search_options(max_length=1024 if kept is not None else len(ids) + 300, do_sample=False)
        if guidance:
            params.set_guidance(*guidance, forced)
        generator = served._og.Generator(served.model, params)
    done("generator")
    generator.append_tokens(ids[known:])
    done("reading")
    steps = 0
    while not generator.is_done() and generator.token_count() < len(ids) + TOKENS:
        generator.generate_next_token()
        steps += 1
    done("decoding")
    answer, stream = generator.get_sequence(0)[len(ids) :], served.tokenizer.create_stream()
    list(map(stream.decode, answer))
    done("detokenizing")
    if kept is not None:
        kept.update(generator=generator, ids=ids)
    return {**spent, "all": sum(spent.values()), "tokens": len(answer), "steps": steps}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="an ONNX Runtime GenAI model")
    parser.add_argument("--whole", type=Path, help="the same with all logits (default: --folder)")
    parser.add_argument("--messages", type=int, default=40)
    asked = parser.parse_args()
    desk = data.load(settings.dataset_folder("support_desk"))
    texts = [record["text"] for record in desk.test[: asked.messages + 1]]
    with tempfile.TemporaryDirectory() as scratch:
        folders = [asked.folder, asked.whole or asked.folder] if asked.folder else student(Path(scratch))
        new, old = (runtime.GenAIRuntime(folder) for folder in folders)
        ways = {"free, as it was": (old, "free"), "free": (new, "free"), "free, kept": (new, "free", False, {})}
        ways |= {"grammar, as it was": (old, "grammar"), "grammar": (new, "grammar")}
        ways |= {"grammar, forced": (new, "grammar", True), "schema, as it was": (old, "schema")}
        ways |= {"schema, forced": (new, "schema", True), "schema, forced, kept": (new, "schema", True, {})}
        rows, whole = [], []
        for number, text in enumerate(texts):
            for name, (served, *how) in ways.items():
                rows.append({"message": number, "way": name, **by_hand(served, desk.task, text, *how)})
        for kind in ("free", "grammar", "schema"):
            for start in range(0, len(texts), BLOCK):
                block = texts[start : start + BLOCK]
                before = [by_hand(old, desk.task, text, kind)["all"] for text in block]
                for number, text in enumerate(block):
                    with measure.timed() as after:
                        guidance = guidance_of(desk.task, text, kind)
                        new.generate(desk.task.messages(text), TOKENS, guidance=guidance)
                    times = {"before": before[number], "after": 1e3 * after.seconds}
                    whole.append({"message": number, "kind": kind, **times})
        table, whole = (pandas.DataFrame(each).query("message > 0") for each in (rows, whole))  # the first warms up
        table = table.groupby("way", sort=False).median().drop(columns="message")
        print(table.round(1).to_string())
        whole["ratio"] = whole["after"] / whole["before"]
        print(whole.groupby("kind", sort=False).median().drop(columns="message").round(2).to_string())
        limit = measure.weight_bytes(folders[0]) / bench.bandwidth() * 1e3
        share = 100 * limit * table["steps"]["free, kept"] / table["decoding"]["free, kept"]
        print(f"decoding, free: {share:.0f} % of the limit that memory sets, {limit:.2f} ms for a token")


if __name__ == "__main__":
    main()
