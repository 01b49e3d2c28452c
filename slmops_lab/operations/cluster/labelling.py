"""A teacher that answers on a cluster: with Ray Data, one worker for so many cores, each opening the model once.

It shares out the batches that `teachers.LocalTeacher` would make, and each worker answers them with a `LocalTeacher`,
so the answers are the same, and on as many threads the same to the last bit. What comes back is kept at once, on the
machine that asks; nothing is asked twice. It checks no answer: `distillation.label` does. Costs the start of Ray (see
`driver`), and on each worker the opening of the model and the model's memory.
https://docs.ray.io/en/latest/data/batch_inference.html
"""

import hashlib
import json
import platform
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from slmops_lab import settings
from slmops_lab.errors import CourseError
from slmops_lab.files import sha256_of, write_json
from slmops_lab.operations.cluster import driver
from slmops_lab.task.schema import Task
from slmops_lab.training.teachers import LocalTeacher, Said


@dataclass
class ClusterTeacher:
    """A tuned model in `folder`, asked on the cluster `on` (see `driver.address_of`); answers are kept in `store`.

    workers: None for as many as the cluster has room for. cores: threads of each. times: of the last question, in
    seconds: `opened` {worker: to open the model}, `batches` [(messages, seconds of the worker)], `driver` (processor
    time of the process that drives Ray, at each batch), `ready` (until the first batch could begin), `last` (until the
    last one was kept) and `all` (until Ray was put away).
    """

    folder: Path
    store: Path
    on: str = "ray"
    workers: int | None = None
    cores: int = 1
    name: str = "the tuned teacher"
    batch_size: int = 32
    times: dict = field(default_factory=dict, repr=False)

    def ask(self, task, texts):
        """A list of `Said`, in the order of texts. What was answered before, even by a killed process, is not asked.

        Raises CourseError where the folder holds no model, and as `driver.run` does; the answers so far are kept.
        """
        plan = _Plan(self, task, texts)
        known = {key: _read(plan.file(key)) for key in plan.batches}
        missing = [key for key, said in known.items() if said is None]
        self.times = {"opened": {}, "batches": [], "driver": [], "begun": time.perf_counter()}
        with tqdm(total=len(texts), desc="labelling on a cluster", leave=False) as bar:
            bar.update(sum(len(plan.batches[key]) for key in known if key not in missing))
            for key, said in self._asked(plan, missing) if missing else ():
                known[key] = said
                missing.remove(key)
                bar.update(len(said))
        self.times["all"] = time.perf_counter() - self.times.pop("begun")
        answers = {i: said for key, chosen in plan.batches.items() for i, said in zip(chosen, known[key], strict=True)}
        return [answers[i] for i in range(len(texts))]

    def _asked(self, plan, missing):
        """Yield (key, list of `Said`) of the batches that are missing, as they come, after each is kept."""

        def given():
            rows = [(key, [plan.texts[i] for i in plan.batches[key]]) for key in missing]
            return {"rows": rows, "workers": self.workers, "teacher": plan.teacher}

        def kept():
            return f"{len(plan.batches) - len(missing)} of {len(plan.batches)} batches of answers are kept."

        for told in driver.run_again(self.on, answer_rows, given, kept):
            if told["problem"]:
                raise CourseError(told["problem"])
            self.times.setdefault("ready", time.perf_counter() - self.times["begun"] - told["seconds"])
            self.times["driver"].append(told["driver"])
            self.times["opened"][told["worker"]] = told["opened"]
            self.times["batches"].append((len(told["said"]), told["seconds"]))
            write_json(plan.file(told["key"]), told["said"])
            self.times["last"] = time.perf_counter() - self.times["begun"]
            yield told["key"], [Said(**one) for one in told["said"]]


class _Plan:
    """What is asked of whom: batches {key: indices of texts}, and what a worker has to know."""

    def __init__(self, asker, task, texts):
        from transformers import AutoTokenizer

        from slmops_lab.evaluation import generation

        folder = Path(asker.folder).resolve()
        if not (folder / "config.json").is_file():
            raise CourseError(f"{folder} is no model folder: it has no config.json.")
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        chats = [task.messages(text) for text in texts]
        _, shared, planned = generation.batches(tokenizer, chats, asker.batch_size)
        content = sha256_of(*(file for file in folder.iterdir() if file.is_file()))
        self.texts, self.store = texts, Path(asker.store)
        self.teacher = {"folder": str(folder), "schema": task.schema, "shared": shared, "batch_size": asker.batch_size}
        self.teacher |= {"cores": asker.cores, "code": settings.code_version()}
        of = [content, shared, self.teacher["code"]]
        self.batches = {_key(of, [chats[i] for i in chosen]): chosen for chosen in planned}

    def file(self, key):
        return self.store / f"{key}.json"


def _key(of, chats):
    return hashlib.sha256(json.dumps([of, chats]).encode()).hexdigest()[:32]


def _read(file):
    """The answers in a file of the store, None where there is none."""
    try:
        return [Said(**one) for one in json.loads(file.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        raise CourseError(f"{file} cannot be read as answers: remove it, and they are asked for again.") from None


def answer_rows(tell, rows, workers, teacher):
    """The work of the driver's process: tells a dict for each row (key, texts), in the order in which they end."""
    import ray

    driver.leave_with_a_machine(tell)
    workers = min(driver.room(teacher["cores"], workers), len(rows))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_options.preserve_order = False  # what is ready is kept, whatever comes before it
    asked = [{"key": key, "texts": json.dumps(texts)} for key, texts in rows]
    data = ray.data.from_items(asked, override_num_blocks=len(asked))
    how = {"compute": ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2)}
    made = data.map(Worker, fn_constructor_kwargs=teacher, num_cpus=teacher["cores"], **how)
    # fetching ahead, the newest answers would wait until the next ones come
    for some in made.iter_batches(batch_size=None, prefetch_batches=0):
        for told in some["told"]:
            tell(json.loads(told) | {"driver": time.process_time()})


class Worker:
    """An actor of Ray Data: opens the teacher once, and answers rows. What a user can put right comes back as told."""

    def __init__(self, folder, schema, shared, batch_size, cores, code):
        import torch

        from slmops_lab.training import base_model, recipe

        self.task, self.problem, begun = Task(schema), "", time.perf_counter()
        here = platform.node()
        self.name = f"{here}, {id(self)}, {time.time_ns()}"
        torch.set_num_threads(cores)
        if settings.code_version() != code:
            self.problem = f"{here} has another version of slmops_lab: install the same one on all machines."
            return
        try:
            model, tokenizer = base_model.open_model(folder)
        except CourseError as error:
            self.problem = f"On {here}: {error} All machines of the cluster have to see it there."
            return
        self.teacher = LocalTeacher(recipe.as_reader(model), tokenizer, batch_size=batch_size, shared=shared)
        self.opened = time.perf_counter() - begun

    def __call__(self, row):
        """{'key', 'texts'} -> {'told': JSON}."""
        if self.problem:
            return {"told": json.dumps({"key": row["key"], "problem": self.problem})}
        begun = time.perf_counter()
        said = [asdict(one) for one in self.teacher.ask(self.task, json.loads(row["texts"]))]
        told = {"key": row["key"], "problem": "", "worker": self.name, "opened": self.opened, "said": said}
        return {"told": json.dumps(told | {"seconds": time.perf_counter() - begun})}
