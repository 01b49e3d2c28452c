"""What a model is worth, measured once and told: as numbers, as Markdown and as one HTML page.

It loads the models one after the other, and answers every test message with each: about 0.1 s a message for the
teacher, less for the others. The page needs no network and no script. It decides nothing; `work.gate` does.
"""

import html
import math

from slmops_lab.evaluation import intervals

SHOWN = 8  # mistakes and labels in a table at most


def measured(desk, teacher, model, raced, seed):
    """Scores of a served model, of its teacher and of two word counters on the test messages of a `Dataset`.

    teacher: Hugging Face folder; model: ONNX Runtime GenAI folder; raced: messages whose time is taken, each system in
    a process of its own. A dict of plain values: `facts` (what a package says of itself), `exact` {system: ends of the
    interval}, `kept` and `lead` (of the teacher, over the better counter), `rival`, `confusions`, `speed`.
    """
    from tqdm import tqdm

    from slmops_lab import measure
    from slmops_lab.deployment import runtime
    from slmops_lab.evaluation import generation, scoring
    from slmops_lab.operations import bench
    from slmops_lab.training import base_model, recipe, teachers

    texts = [record["text"] for record in desk.test]
    chats = [desk.task.messages(text) for text in texts]
    said = {}
    for pairs, name in ((False, "counting words"), (True, "counting word pairs")):
        said[name] = [one.text for one in teachers.WordCounter(desk.train, pairs).ask(desk.task, texts)]
    network, tokenizer = base_model.open_model(teacher)
    said["teacher"] = generation.generate(recipe.as_reader(network), tokenizer, chats, label="teacher")
    del network
    served = runtime.GenAIRuntime(model)
    said["model"] = [served.generate(chat) for chat in tqdm(chats, desc="model", leave=False)]
    served.close()
    systems = {"teacher": ("torch", teacher), "model": ("genai", model)}
    race, memory = runtime.race(systems, chats[:raced])
    scores = {name: scoring.score(desk.task, desk.test, answers) for name, answers in said.items()}
    right = {name: one.rows["exact"] for name, one in scores.items()}
    # the better of the two on these very messages: chosen against the model, not for it
    rival = max(("counting words", "counting word pairs"), key=lambda name: right[name].mean())
    lead = intervals.difference(right["model"], right[rival], seed)
    exact = {name: _plain(intervals.proportion(rows)) for name, rows in right.items()}
    times = {name: _plain(bench.percentiles(race[race["system"] == name]["ms"])) for name in systems}
    facts = {"test": len(texts), "exact_match": exact["model"]["share"], "exact_match_low": exact["model"]["low"]}
    facts |= {"valid_json": float(scores["model"].rows["valid"].mean()), "lead_low": float(lead["low"])}
    facts |= {"megabytes": measure.weight_bytes(model) / 1e6, "peak_memory_mb": memory["model"] / 1e6}
    facts |= {"p50_ms": times["model"]["p50"], "p95_ms": times["model"]["p95"]}
    mistakes = {
        name: scoring.confusions(scoring.outcomes(name, desk.test, scores["model"].readings), SHOWN).to_dict("records")
        for name in desk.task.fields
    }
    speed = {name: {**times[name], "memory_mb": memory[name] / 1e6} for name in systems}
    speed["teacher"]["megabytes"], speed["model"]["megabytes"] = measure.weight_bytes(teacher) / 1e6, facts["megabytes"]
    return {
        **{"facts": facts, "exact": exact, "rival": rival, "lead": _plain(lead)},
        **{"kept": _plain(intervals.ratio(right["model"], right["teacher"], seed)), "speed": speed},
        **{"confusions": mistakes, "right": {name: rows.tolist() for name, rows in right.items()}},
    }


def _plain(values):
    """Numbers that JSON knows: None for what is not finite."""
    return {name: float(value) if math.isfinite(value) else None for name, value in dict(values).items()}


def markdown(told):
    """The report as Markdown. told: {name of a step: its facts}, and of `scores` and `verdict` their whole files."""
    found, verdict, data = told["scores"], told["verdict"], told["data"]
    facts, exact = found["facts"], found["exact"]
    percent = {
        name: " | ".join(f"{100 * ends[key]:.1f}" for key in ("share", "low", "high")) for name, ends in exact.items()
    }
    ships = "It may ship." if verdict["passed"] else "It does not ship: " + "; ".join(verdict["reasons"]) + "."
    lead, kept = found["lead"], found["kept"]
    records = data["records"]
    low, high = (f"{100 * exact['model'][key]:.1f}" for key in ("low", "high"))
    lines = [
        f"# {told['name']}: what the model is worth",
        ships,
        f"On {facts['test']} test messages that no part of it has seen, it is right in "
        f"{100 * facts['exact_match']:.1f} % (95 % interval {low} to {high}).",
        f"Against {found['rival']}: {_signed(lead)} points. {_share_kept(kept)}",
        "## How good",
        _table(["right in %", "share", "from", "to"], [[name, *percent[name].split(" | ")] for name in percent]),
        "From and to are the ends of a 95 % interval (Wilson). All four answered the same messages.",
        "## How fast, how large",
        _table(
            ["", "ms per message (median)", "p95", "process, MB", "files, MB"],
            [
                [name, *(f"{row[key]:.0f}" for key in ("p50", "p95", "memory_mb", "megabytes"))]
                for name, row in found["speed"].items()
            ],
        ),
        "The teacher runs in PyTorch with 32 bits a weight, the model in ONNX Runtime GenAI with fewer.",
        "## What it confuses",
    ]
    for field, rows in found["confusions"].items():
        shown = [[row["truth"], row["said"], str(row["times"])] for row in rows]
        lines.append(_table([f"{field} is", "it says", "times"], shown) if shown else f"{field}: nothing.")
    lines += ["## The data", f"{', '.join(f'{count:,} {split}' for split, count in records.items() if count)}."]
    lines += ["\n".join(f"- {_escaped(note)}" for note in data["notes"])] if data.get("notes") else []
    lines += ["## How it was made", _table(["step", "minutes", "what it says"], told["steps"])]
    return "\n\n".join(lines) + "\n"


def _share_kept(kept):
    if kept["ratio"] is None or kept["high"] is None:
        return "Its teacher is hardly ever right, so how much is kept of it cannot be told."
    told = f"{100 * kept['ratio']:.1f} % ({100 * kept['low']:.1f} to {100 * kept['high']:.1f})"
    return f"It is right {told} as often as its teacher."


def _signed(gap):
    return f"{100 * gap['points']:+.1f} ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f})"


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_escaped(str(cell)) for cell in line) + " |" for line in lines)


def _escaped(text):
    """Somebody's own words inside of Markdown: no table, link or tag of theirs."""
    for mark in "\\|`*_[]<>":
        text = text.replace(mark, "\\" + mark) if set(text) - set("-") else text
    return " ".join(text.split())


STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { border-bottom: 1px solid #8888; padding: .3rem .8rem .3rem 0; text-align: left }
"""


def page(text, title):
    """The Markdown of `markdown` as one HTML page."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head><body>\n{body}</body></html>\n'
