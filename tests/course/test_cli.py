"""What a user types, what a user reads: exit code and one clear sentence."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import psutil
import pytest
from endpoint import reply

from slmops_lab.course import cli

REPOSITORY = Path(__file__).resolve().parents[2]

GOOD = """
# %% tags=["parameters"]
dataset = "support_desk"
speed = 1
profile = None
# %%
print("speed is", speed, dataset)
"""


def slmops(*arguments, env=None):
    command = [sys.executable, "-c", "from slmops_lab.course.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | (env or {}))


def notebook(folder, source, name="own.ipynb"):
    path = folder / name
    made = jupytext.reads(source, "py:percent")
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, path)
    return path


def executed(name="own.ipynb", profile=""):
    return (Path(os.environ["SLMOPS_BUILD"]) / profile / "notebooks" / name).read_text()


def refused(done, sentence):
    """One sentence on standard error, no traceback, an exit code that says so."""
    assert done.returncode != 0
    assert sentence in done.stderr.replace("\n", " "), done.stderr
    assert "Traceback" not in done.stderr
    message = [line for line in done.stderr.splitlines() if line.startswith("slmops: ")]
    assert len(message) == 1


def test_run_passes_parameters(tmp_path, colours):
    path = notebook(tmp_path, GOOD)
    done = slmops("run", path, "-p", "speed=3", "-p", f"dataset={colours}")
    assert done.returncode == 0, done.stderr
    assert f"speed is 3 {colours}" in executed()
    assert "own: 0." in done.stdout
    assert "own" in (Path(os.environ["SLMOPS_BUILD"]) / "timings.json").read_text()


def test_profile_reaches_the_notebook(tmp_path):
    path = notebook(tmp_path, GOOD + "print('profile', profile)")
    assert slmops("run", path, "--profile", "quick").returncode == 0
    assert "profile quick" in executed(profile="quick")


def test_the_profile_that_is_asked_for_wins(tmp_path):
    path = notebook(tmp_path, GOOD + "print('profile', profile)")
    assert slmops("run", path, "--profile", "full", "-p", "profile=quick").returncode == 0
    assert "profile full" in executed()
    assert slmops("run", path, "--profile", "full", env={"SLMOPS_PROFILE": "quick"}).returncode == 0
    assert not (Path(os.environ["SLMOPS_BUILD"]) / "quick").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-p", "sped=3"], "own has no parameter 'sped': it has dataset, profile, speed."),
        (["-p", "speed"], "'speed' is no parameter: write name=value."),
        (["-p", "dataset=nonsense"], "There is no data set 'nonsense'"),
        (["-p", "dataset=5"], "There is no data set '5'"),
        (["--profile", "fast"], "There is no profile 'fast': give one of full, quick."),
    ],
)
def test_run_refuses_before_it_runs(tmp_path, arguments, sentence):
    path = notebook(tmp_path, GOOD)
    refused(slmops("run", path, *arguments), sentence)
    assert not Path(os.environ["SLMOPS_BUILD"]).exists()


def test_unknown_chapter():
    refused(slmops("run", "9"), "There is no chapter '9': give one of 01_introduction")


def test_failing_cell_is_named_and_the_notebook_kept(tmp_path):
    path = notebook(tmp_path, GOOD + "\n# %%\n1 / 0\n")
    refused(slmops("run", path), "own stopped in cell 3: ZeroDivisionError: division by zero")
    assert "ZeroDivisionError" in executed()


def test_course_error_in_a_cell_is_its_sentence(tmp_path):
    cell = "\n# %%\nfrom slmops_lab.task import data\ndata.load('.')\n"
    refused(slmops("run", notebook(tmp_path, GOOD + cell)), "own stopped in cell 3: schema.json is missing")


def test_dead_kernel(tmp_path):
    cell = "\n# %%\nimport os\nos.kill(os.getpid(), 9)\n"
    refused(slmops("run", notebook(tmp_path, GOOD + cell)), "own: the notebook's kernel died")


def test_interrupted_run_stops_its_kernel_and_can_be_repeated(tmp_path):
    slow = notebook(tmp_path, GOOD + "\n# %%\nimport time\ntime.sleep(60 * (speed == 1))\n")
    command = [sys.executable, "-c", "from slmops_lab.course.cli import main; main()", "run", str(slow)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that starts CI in the background has SIGINT ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    children = []
    for _ in range(300):
        children = psutil.Process(process.pid).children(recursive=True)
        if children and "own.ipynb" in os.listdir(Path(os.environ["SLMOPS_BUILD"]) / "notebooks"):
            break
        time.sleep(0.1)
    time.sleep(3)  # into the cell that sleeps
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not any(child.is_running() for child in children), "the kernel is still there"
    assert slmops("run", slow, "-p", "speed=2").returncode == 0
    assert "speed is 2" in executed()


def test_data_check(colours):
    done = slmops("data", "check", colours)
    assert (done.returncode, done.stdout) == (0, "No problems: 4 train, 4 pool, 4 test, 4 drift\n")
    with open(colours / "train.jsonl", "a") as file:
        file.write("{broken\n")
    done = slmops("data", "check", colours)
    assert done.stdout.startswith("train.jsonl:5: no valid JSON")
    refused(done, "has 1 problem.")
    refused(slmops("data", "check", "nowhere"), "There is no data set 'nowhere'")


def test_the_folder_one_stands_in_is_a_data_set(colours, monkeypatch):
    monkeypatch.chdir(colours)
    assert slmops("data", "check", ".").returncode == 0


def test_a_build_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "build").write_text("a file, where a folder should be")
    refused(slmops("run", notebook(tmp_path, GOOD)), "The system refuses: Not a directory")


def test_data_import(tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("message,label\n" + "".join(f"text {i},l{i % 2}\n" for i in range(20)))
    columns = ["--text-column", "message", "--label-column", "label"]
    done = slmops("data", "import", source, *columns, "--out", tmp_path / "mine", "--labelled", "10")
    assert done.returncode == 0, done.stderr
    assert "10 train, 6 pool, 4 test" in done.stdout
    assert slmops("data", "check", tmp_path / "mine").returncode == 0
    refused(
        slmops("data", "import", source, "--text-column", "msg", *columns[2:], "--out", tmp_path / "b"),
        "has no column 'msg': it has 'message', 'label'.",
    )


NARROW = [
    {"PYTHONIOENCODING": "cp1252"},
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.parametrize("console", NARROW, ids=str)
def test_labels_that_the_console_cannot_show(tmp_path, console):
    labels = ["\u0936\u093f\u0915\u093e\u092f\u0924", "[red]", "\U0001f600", "\U0001f600\ufe0f "]
    source, out = tmp_path / "in.csv", tmp_path / "mine"
    rows = "".join(f"text {i},{labels[i % 4]}\n" for i in range(20))
    source.write_text("message;n,\u0935\u0930\u094d\u0917\n" + rows, encoding="utf-8")
    columns = ["--text-column", "message;n", "--label-column", "\u0935\u0930\u094d\u0917"]
    if "LC_ALL" in console:  # there the shell's words are bytes, too
        columns[3], _ = "label", source.write_text("message;n,label\n" + rows, encoding="utf-8")
    done = slmops("data", "import", source, *columns, "--out", out, env=console)
    assert done.returncode == 0 and "\\u0936\\u093f" in done.stdout and "[red]" in done.stdout, done.stderr
    assert "imported 20 of 20 rows." in done.stdout
    assert slmops("data", "check", out, env=console).returncode == 0
    with open(out / "train.jsonl", "a", encoding="utf-8") as file:
        file.write('{"id": "\u0936", "text": "x", "answer": {"a": 1}}\n{"id": "\u0936", "text": "\\ud83d"}\n')
        file.write('{"id": "train-00001", "text": "x \u0936", "\u0936": 1}\n')
    done = slmops("data", "check", out, env=console)
    refused(done, "has 3 problems.")
    assert "'\\ud83d' is half of a character" in done.stdout and "unexpected key '\\u0936'" in done.stdout


def test_data_import_prints_what_was_left_out_and_what_looks_wrong(tmp_path):
    source = tmp_path / "tickets.csv"
    rows = "".join(f"{i},Hi,<p>case {i}</p>,,team {i % 2}\n" for i in range(20))
    source.write_text("Ticket ID,Subject,Description,Tags,Group\n" + rows + "20,Hi,<p>case 1</p>,,Team 1\n,,,,team 0\n")
    columns = ["--text-column", "Description", "--label-column", "Group"]
    done = slmops("data", "import", source, *columns, "--out", tmp_path / "a")
    assert "imported 19 of 22 rows: 2 with two labels, 1 without a text; left out lines 3, 22" in done.stdout
    assert "Warning: 19 texts hold HTML tags; --html keeps the words only." in done.stdout
    assert [line.split()[-3:] for line in done.stdout.splitlines() if line.startswith("team 0")] == [["8", "2", "0"]]
    done = slmops("data", "import", source, *columns, "--html", "--out", tmp_path / "b")
    assert "Warning" not in done.stdout and '"text": "case 3"' in "".join(
        (tmp_path / "b" / f"{split}.jsonl").read_text() for split in ("train", "test")
    )


def test_all_chapters_run_on_somebody_elses_messages(tmp_path, tiny_folder, endpoint, monkeypatch):
    """A folder made from a CSV file, one enum field; a random model, so every answer of its own is wrong.

    A teacher elsewhere is measured on the labelled messages that are kept back, and labels the pool, together
    with the word counters, as the README has it.
    """
    source = tmp_path / "in.csv"
    rows = [f"please look at case {i} in town {i * 7},topic {i % 3}" for i in range(60)]
    source.write_text("message,label\n" + "\n".join(rows) + "\n")
    columns = ["--text-column", "message", "--label-column", "label", "--labelled", "30"]
    assert slmops("data", "import", source, *columns, "--out", tmp_path / "mine").returncode == 0
    server = endpoint(reply("as you like"), then=reply('{"label":"topic 1"}'))
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    monkeypatch.setenv("SLMOPS_TEACHER_MODEL", "big")
    done = slmops("run", "--profile", "quick", "-p", f"dataset={tmp_path / 'mine'}", "-p", f"base_model={tiny_folder}")
    assert done.returncode == 0, done.stderr
    build = Path(os.environ["SLMOPS_BUILD"]) / "quick"
    ledger = (build / "claims.json").read_text()
    assert '"accuracy-kept"' in ledger and '"lora-params"' in ledger
    pool, judges = sum(1 for _ in open(tmp_path / "mine" / "pool.jsonl")), 30 - 24
    assert len(server.seen) == judges + pool and server.seen[0][1]["model"] == "big"
    shown = (build / "notebooks" / "02_distillation.ipynb").read_text()
    assert f"big, word pairs and single words answered {judges} messages" in shown
    assert f": {pool} of {pool} messages Usage(requests={judges + pool}" in shown and "secret-key" not in shown


def test_a_student_deeper_than_its_teacher_stops_before_the_work(colours, tiny_folder):
    done = slmops("run", "2", "-p", f"dataset={colours}", "-p", f"base_model={tiny_folder}", "-p", "student_layers=9")
    assert done.returncode == 1
    assert "in cell 3: A student of 9 layers cannot be cut from 4: take 2 to 4." in done.stderr


def test_doctor_says_what_is_missing(tmp_path):
    assert slmops("doctor").returncode == 0
    done = slmops("doctor", env={"SLMOPS_HOME": str(tmp_path / "empty")})
    assert done.returncode == 1
    assert "slmops fetch" in done.stdout and "not yet" in done.stdout


def test_doctor_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # its import fails
    assert cli._bf16() == "unknown"


def test_empty_ledger_says_so():
    assert "The ledger is empty" in slmops("ledger").stdout


def make(tmp_path, *arguments):
    return subprocess.run(["make", "-C", REPOSITORY, *arguments], capture_output=True, text=True, env=os.environ)


def test_old_python_is_refused_in_one_sentence(tmp_path):
    old = tmp_path / "python-old"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9, 1); exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    done = make(tmp_path, "check-python", f"PYTHON={old}")
    assert done.returncode != 0
    assert "The course needs Python 3.11 or newer, this is 3.9" in done.stderr
    assert make(tmp_path, "check-python", f"PYTHON={sys.executable}").returncode == 0
