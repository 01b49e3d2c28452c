"""Answers to chapter 3's exercises: what its checks take, and what looks right to them and is not."""

from slmops_lab.course.stand_ins.chapter_3 import CHAPTER  # noqa: F401

BY_KEY = """
def split(records, part):
    keys = sorted({data.text_key(record["text"]) for record in records})
    chosen = random.Random(1).sample(keys, round(part * len(keys)))
    learn = [record for record in records if data.text_key(record["text"]) not in chosen]
    hold = [record for record in records if data.text_key(record["text"]) in chosen]
    return learn, hold
"""

GROUPS = """
from sklearn.model_selection import GroupShuffleSplit
def split(records, part):
    groups = [data.text_key(record["text"]) for record in records]
    sides = next(GroupShuffleSplit(1, test_size=part, random_state=0).split(records, groups=groups))
    return [[records[i] for i in side] for side in sides]
"""

SHUFFLED = """
def split(records, part):
    mixed = random.Random(0).sample(records, len(records))
    size = round(part * len(mixed))
    return mixed[size:], mixed[:size]
"""

MERGE = """
def merge(layer):
    made = copy.deepcopy(layer.linear)
    made.weight.data = layer.linear.weight.data + layer.scale * (layer.B @ layer.A).detach()
    return made
"""

NEW = """
@torch.no_grad()
def merge(layer):
    writes, reads = layer.linear.weight.shape
    made = torch.nn.Linear(reads, writes, bias=layer.linear.bias is not None)
    made.load_state_dict(layer.linear.state_dict())
    made.weight.addmm_(layer.B, layer.A, alpha=layer.scale)
    return made
"""

LARGEST = """
def largest_rank(model, gigabytes):
    one_rank, matrices = lora_numbers(model, 1)
    count = sum(weight.numel() for weight in model.parameters())
    left = 1e9 * gigabytes - nf4_bytes * matrices - 2 * (count - matrices)
    return max(0, int(left // (16 * one_rank)))
"""

TRIED = """
def largest_rank(model, gigabytes):
    count, rank = sum(weight.numel() for weight in model.parameters()), 0
    def size(rank):
        adapter, matrices = lora_numbers(model, rank)
        return nf4_bytes * matrices + 2 * (count - matrices) + training_bytes(adapter, adapter)
    while size(rank + 1) <= gigabytes * 1e9:
        rank += 1
    return rank
"""

STOPS = """
def stops(losses, patience):
    best, waited = 0, 0
    for i, loss in enumerate(losses):
        waited = 0 if i == 0 or loss < losses[best] else waited + 1
        best = i if waited == 0 else best
        if waited == patience:
            return i, best
    return len(losses) - 1, best
"""

RIGHT = {
    "3.1": [BY_KEY, GROUPS, BY_KEY.replace("return learn, hold", "return [learn, hold]")],
    "3.2": [MERGE, NEW],
    "3.3": [
        "my_adapter = trained('mine', gold_read[:40], lora_config(), max_steps=20)",
        "my_adapter = trained('mine', gold_read, lora_config(1), max_steps=59)",
    ],
    "3.4": [LARGEST, TRIED, LARGEST.replace("int(left // (16 * one_rank))", "left // (16 * one_rank)")],
    "3.5": [STOPS, STOPS.replace("return i, best", "return [i, best]")],
}

WRONG = {
    "3.1": [
        SHUFFLED,
        SHUFFLED.replace("random.Random(0).sample(records, len(records))", "records"),  # from one end
        SHUFFLED.replace("random.Random(0).sample(records, len(records))", "sorted(records, key=lambda r: r['text'])"),
        "split = lambda records, part: (records, records[: round(part * len(records))])",
        "split = lambda records, part: (records[1::2], records[::2])",
        "split = lambda records, part: (records, [])",
        BY_KEY.replace("random.Random(1).sample(keys, round(part * len(keys)))", "keys[: round(part * len(keys))]"),
        BY_KEY.replace('data.text_key(record["text"])', 'record["text"]'),
        BY_KEY.replace('data.text_key(record["text"])', 'record["text"].lower()'),  # spaces tell them apart
        BY_KEY.replace('data.text_key(record["text"])', 'record["text"].strip()'),  # capitals do
        BY_KEY.replace('data.text_key(record["text"])', 'record["id"]'),
        BY_KEY.replace("return learn, hold", "return hold, learn"),
        BY_KEY.replace("return learn, hold", "return learn"),
        BY_KEY.replace("return learn, hold", "return keys, chosen"),
        BY_KEY.replace("return learn, hold", "return {one['text'] for one in learn}, {one['text'] for one in hold}"),
        BY_KEY.replace("part * len(keys)", "0.2 * len(keys)"),
        BY_KEY.replace("return learn, hold", "return learn, [one for one in hold if one['text'].islower()]"),
        BY_KEY.replace(
            "return learn, hold", "return list({data.text_key(r['text']): r for r in learn}.values()), hold"
        ),
        "split = ([], [])",
    ],
    "3.2": [
        MERGE.replace("copy.deepcopy(layer.linear)", "layer.linear"),  # the layer itself is changed
        MERGE.replace("copy.deepcopy(layer.linear)", "copy.copy(layer.linear)"),
        MERGE.replace("layer.scale * ", ""),
        MERGE.replace("layer.scale * ", "2 * "),
        MERGE.replace("layer.scale * ", "layer.scale / len(layer.A) * "),
        MERGE.replace("layer.scale * ", "layer.scale * len(layer.A) * "),
        MERGE.replace("layer.scale * ", "layer.scale**2 * "),
        MERGE.replace("layer.B @ layer.A", "layer.A @ layer.B"),
        MERGE.replace("layer.B @ layer.A", "layer.A.T @ layer.B.T"),
        MERGE.replace("weight.data + ", "weight.data - "),
        MERGE.replace("layer.linear.weight.data + ", ""),
        MERGE.replace("return made", "return made.weight"),
        MERGE.replace("return made", "layer.B.data.zero_()\n    return made"),
        NEW.replace("layer.linear.bias is not None", "False").replace(
            "load_state_dict(layer.linear.state_dict())", "weight.copy_(layer.linear.weight)"
        ),
        NEW.replace("made.load_state_dict(layer.linear.state_dict())", "made.weight.copy_(layer.linear.weight)"),
        "merge = lambda layer: layer",
        "merge = lambda layer: layer.linear",
        "merge = lambda layer: copy.deepcopy(layer)",
        "merge = torch.nn.Linear(5, 6)",
    ],
    "3.3": [
        "my_adapter = trained('mine', gold_read, lora_config())",  # as good as a trial, and no better
        "my_adapter = trained('mine', gold_read, lora_config(), max_steps=13)",
        "my_adapter = trained('mine', gold_read, lora_config(), max_steps=60)",  # a minute
        "my_adapter = trained('mine', gold_read, lora_config(), max_steps=500)",
        "my_adapter = trained('mine', gold_read, lora_config(4), max_steps=40)",
        "my_adapter = trained('mine', gold_read, max_steps=40)",  # the whole upper half
        "my_adapter = trained('mine', judges, lora_config(), max_steps=40)",
        "my_adapter = trained('mine', [*gold_read, judges[2]], lora_config(), max_steps=40)",
        "my_adapter = trained('mine', gold_read, lora_config(), judges=gold_read[:4], max_steps=40)",
        "my_adapter = trained('mine', gold_read, lora_config(), judges=judges[:1], max_steps=40)",
        "my_adapter = trained('mine', gold_read, lora_config(), max_steps=40)['model']",
        "my_adapter = trained('mine', gold_read, lora_config(), max_steps=40)['nats']",
        "my_adapter = [trained('mine', gold_read, lora_config(), max_steps=40)]",
        "my_adapter = after_dials['a higher scale']",
        "my_adapter = {'nats': [0.1] * 4}",
    ],
    "3.4": [
        LARGEST.replace("int(left // (16 * one_rank))", "round(left / (16 * one_rank))"),
        LARGEST.replace("int(left // (16 * one_rank))", "math.ceil(left / (16 * one_rank))"),
        LARGEST.replace("int(left // (16 * one_rank))", "left / (16 * one_rank)"),
        LARGEST.replace("max(0, int(left // (16 * one_rank)))", "int(left // (16 * one_rank))"),  # below 0
        LARGEST.replace("max(0, ", "max(1, "),
        LARGEST.replace("16 * one_rank", "12 * one_rank"),  # its own weights forgotten
        LARGEST.replace("16 * one_rank", "4 * one_rank"),
        LARGEST.replace("16 * one_rank", "2 * one_rank"),
        LARGEST.replace("nf4_bytes * matrices + ", "").replace("nf4_bytes * matrices - ", ""),
        LARGEST.replace("nf4_bytes * matrices", "2 * matrices"),
        LARGEST.replace("nf4_bytes * matrices", "4.5 * matrices"),  # bits
        LARGEST.replace("nf4_bytes * matrices", "matrices / 2"),  # no scales
        LARGEST.replace("2 * (count - matrices)", "nf4_bytes * (count - matrices)"),
        LARGEST.replace("2 * (count - matrices)", "4 * (count - matrices)"),
        LARGEST.replace("2 * (count - matrices)", "2 * count"),
        LARGEST.replace("1e9 * gigabytes", "2**30 * gigabytes"),
        LARGEST.replace("lora_numbers(model, 1)", "lora_numbers(model)"),
        LARGEST.replace("lora_numbers(model, 1)", "lora_numbers(model, 1)[::-1]"),
        LARGEST.replace("(16 * one_rank)", "(16 * matrices)"),
        TRIED.replace("rank + 1", "rank"),
        TRIED.replace("return rank", "return min(rank, 32)"),
        "largest_rank = lambda model, gigabytes: 7",
        "largest_rank = 7",
    ],
    "3.5": [
        STOPS.replace("waited == patience", "waited > patience"),
        STOPS.replace("waited == patience", "waited == patience - 1 and i"),
        STOPS.replace("loss < losses[best]", "loss <= losses[best]"),
        STOPS.replace("loss < losses[best]", "loss > losses[best]"),
        STOPS.replace("loss < losses[best]", "loss < losses[i - 1]"),  # better than the one before is not enough
        STOPS.replace("best = i if waited == 0 else best", "best = i"),
        STOPS.replace("waited = 0 if i == 0 or", "waited = waited if i == 0 or"),  # counts them all
        STOPS.replace("return i, best", "return best, i"),
        STOPS.replace("return i, best", "return i - patience, best"),
        STOPS.replace("return i, best", "return i + 1, best + 1"),
        STOPS.replace("return i, best", "return losses[i], losses[best]"),
        STOPS.replace("return i, best", "return i"),
        STOPS.replace("return i, best", "return i, i"),
        STOPS.replace("return i, best", "return i, losses.index(min(losses))"),
        STOPS.replace("len(losses) - 1, best", "len(losses), best"),
        STOPS.replace("len(losses) - 1, best", "None, best"),
        "stops = lambda losses, patience: (len(losses) - 1, losses.index(min(losses)))",
        "stops = lambda losses, patience: (losses.index(min(losses)) + patience, losses.index(min(losses)))",
        "stops = (4, 2)",
    ],
}
