"""What a user types, what a user reads: exit code and one clear sentence."""

import os
import re
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
from typer import testing

from slmops_lab import settings
from slmops_lab.course import chapters, cli, doctor
from slmops_lab.errors import CourseError

GOOD = """
# %% tags=["parameters"]
dataset = "support_desk"
speed = 1
profile = None
# %%
print("speed is", speed, dataset)
"""


SLMOPS = [sys.executable, "-m", "slmops_lab"]


def slmops(*arguments, env=None):
    command = [*SLMOPS, *map(str, arguments)]
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


def test_run_passes_parameters_and_the_profile(tmp_path, colours):
    path = notebook(tmp_path, GOOD + "print('profile', profile)")
    done = slmops("run", path, "--profile", "quick", "-p", "speed=3", "-p", f"dataset={colours}")
    assert done.returncode == 0, done.stderr
    assert f"speed is 3 {colours}" in executed(profile="quick") and "profile quick" in executed(profile="quick")
    assert "own: 0." in done.stdout
    assert "own" in (Path(os.environ["SLMOPS_BUILD"]) / "quick" / "timings.json").read_text()


def test_the_profile_that_is_asked_for_wins(tmp_path):
    path = notebook(tmp_path, GOOD + "print('profile', profile)")
    done = slmops("run", path, "--profile", "full", "-p", "profile=quick", env={"SLMOPS_PROFILE": "quick"})
    assert done.returncode == 0
    assert "profile full" in executed()
    assert not (Path(os.environ["SLMOPS_BUILD"]) / "quick").exists()


def test_run_from_another_place(tmp_path, colours, monkeypatch):
    """By number and by a relative path; what SLMOPS_BUILD names lies where the user stands."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook(
        folder, GOOD + "print('in', Path.cwd().name)".replace("Path", "__import__('pathlib').Path"), "01_own.ipynb"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("SLMOPS_BUILD")
    code = "from slmops_lab.course import chapters, cli; from pathlib import Path\n"
    code += f"chapters.NOTEBOOKS = Path({str(folder)!r}); cli.main()"
    started = {"env": os.environ | {"SLMOPS_BUILD": "out"}, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", code, "run", "1", "-p", f"dataset=../{colours.name}"], **started)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "elsewhere" / "out" / "notebooks" / "01_own.ipynb").read_text()
    assert "in notebooks" in text and f"speed is 1 {colours}" in text
    refused(slmops("run", "../notebooks/01_own.ipynb", "-p", "a=1"), "01_own has no parameter 'a'")


KNOWN = {"flag": False, "count": 960, "rate": 0.5, "name": "x", "free": None, "many": [1]}


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        *((f"flag={word}", False) for word in ("False", "false")),
        *((f"flag={word}", True) for word in ("True", "true")),
        *((f"free={word}", None) for word in ("None", "null")),
        *((f"free={word}", "a b") for word in ("a b", "'a b'", '"a b"')),
        ("free=false", False),
        ("free=3", 3),
        ("free=", ""),
        ("count=-5", -5),
        ("count=1_000", 1000),
        ("rate=2", 2),
        ("rate=1e-4", 1e-4),
        ("name=5", "5"),
        ("name=007", "007"),
        ("name=None", "None"),
        ("name='5'", "5"),
        ("name=a=b", "a=b"),
        ("many=[2, 3]", [2, 3]),
    ],
)
def test_parameters_are_read_as_python_and_json_have_them(pair, value):
    (read,) = chapters.parse_parameters([pair], KNOWN).values()
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        *(
            (f"flag={word}", f"flag must be True or False, not '{word}'.")
            for word in ("no", "FALSE", "0", "'False'", "")
        ),
        *(
            (f"count={word}", f"count must be a whole number, not '{word}'.")
            for word in ("x", "1.5", "true", "None", "1e3")
        ),
        *((f"rate={word}", f"rate must be a number, not '{word}'.") for word in ("fast", "True")),
        ("many=2", "many must be a list like [1], not '2'."),
        ("count", "'count' is no parameter: write name=value."),
        ("=3", "'=3' is no parameter"),
    ],
)
def test_parameters_of_another_kind_are_refused(pair, sentence):
    with pytest.raises(CourseError, match=re.escape(sentence)):
        chapters.parse_parameters([pair], KNOWN)


def test_parameters_without_a_notebook_at_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    read = chapters.parse_parameters(["dataset=mine", "flag=False", "n=3"])
    assert read == {"dataset": str(tmp_path / "mine"), "flag": False, "n": 3}
    (tmp_path / "quick").mkdir()
    assert chapters.parse_parameters(["profile=quick"], {"profile": None}) == {"profile": "quick"}


def test_the_parameters_cell_of_a_notebook(tmp_path):
    cell = '# %% tags=["parameters"]\na = 2 * 3\nb, c = 1, 2\nd = -1  # four\ne: int = 5\nprint(a)\n'
    assert chapters.parameters_of(notebook(tmp_path, cell)) == {"a": None, "d": -1, "e": 5}
    assert chapters.parameters_of(notebook(tmp_path, "# %%\n1\n")) == {}
    assert chapters.parameters_of(chapters.find("2"))["submit_to_azure"] is False


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"cells": [1]}', "# Title"])
def test_a_file_that_is_no_notebook(tmp_path, text):
    (tmp_path / "own.ipynb").write_text(text)
    refused(slmops("run", tmp_path / "own.ipynb"), "own.ipynb is no notebook")


def test_what_costs_money_asks_for_true_itself():
    code = (chapters.NOTEBOOKS / "02_distillation.py").read_text(encoding="utf-8")
    assert re.findall(r"if submit_to_azure\b.*", code) == ['if submit_to_azure is True else "nothing was sent"']


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-p", "sped=3"], "own has no parameter 'sped': it has dataset, profile, speed."),
        (["-p", "speed=fast"], "The parameter speed must be a whole number, not 'fast'."),
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


def test_a_kernel_that_is_killed(tmp_path):
    cell = "\n# %%\nimport os\nos.kill(os.getpid(), 9)\n"
    done = slmops("run", notebook(tmp_path, GOOD + cell))
    refused(done, "own: the notebook's kernel was killed, probably for its memory: ")
    assert f" {settings.memory_limit() / 1e9:.1f} GB allowed here, the largest process had 0." in done.stderr


def test_interrupted_run_stops_its_kernel_and_can_be_repeated(tmp_path):
    here = tmp_path / "in the cell that sleeps"
    cell = f"\n# %%\nimport time\nopen({str(here)!r}, 'w').close()\ntime.sleep(600 * (speed == 1))\n"
    slow = notebook(tmp_path, GOOD + cell)
    process = subprocess.Popen(
        [*SLMOPS, "run", str(slow)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that starts CI in the background has SIGINT ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not here.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert children and not any(child.is_running() for child in children), "the kernel is still there"
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
    source.write_text(source.read_text() + "text 20,\n")
    done = slmops("data", "import", source, *columns, "--out", tmp_path / "all", "--unlabelled")
    assert done.returncode == 0 and "16 train, 1 pool, 4 test" in done.stdout, done.stderr
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


@pytest.fixture
def own_messages(tmp_path, tiny_folder, endpoint, monkeypatch):
    """A folder made from a CSV file, one enum field, and a teacher elsewhere. Returns (arguments of a run, server).

    The model is random, so every answer of its own is wrong.
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
    parameters = [f"dataset={tmp_path / 'mine'}", f"base_model={tiny_folder}"]
    return ["--profile", "quick", "-p", parameters[0], "-p", parameters[1]], server


def labelled_by_the_teacher_elsewhere(folder, server):
    """It was measured on the labelled messages that are kept back, and labelled the pool, as the README has it."""
    pool, judges = sum(1 for _ in open(folder / "pool.jsonl")), 30 - 24
    assert len(server.seen) == judges + pool and server.seen[0][1]["model"] == "big"
    shown = executed("02_distillation.ipynb", "quick")
    assert f"big, counting word pairs and counting words answered {judges} messages" in shown
    assert f": {pool} of {pool} messages Usage(requests={judges + pool}" in shown and "secret-key" not in shown


def test_a_teacher_elsewhere_labels_somebody_elses_messages(tmp_path, own_messages):
    """Chapter 2 up to its labels."""
    arguments, server = own_messages
    chapter = jupytext.read(chapters.NOTEBOOKS / "02_distillation.py")
    (last,) = [i for i, cell in enumerate(chapter.cells) if "distillation.label(" in cell.source]
    chapter.cells = chapter.cells[: last + 1]
    nbformat.write(chapter, tmp_path / "02_distillation.ipynb")
    done = slmops("run", tmp_path / "02_distillation.ipynb", *arguments)
    assert done.returncode == 0, done.stderr
    labelled_by_the_teacher_elsewhere(tmp_path / "mine", server)


@pytest.mark.weekly
def test_all_chapters_run_on_somebody_elses_messages(tmp_path, own_messages):
    arguments, server = own_messages
    done = slmops("run", *arguments)
    assert done.returncode == 0, done.stderr
    ledger = (Path(os.environ["SLMOPS_BUILD"]) / "quick" / "claims.json").read_text()
    assert '"accuracy-kept"' in ledger and '"lora-params"' in ledger
    labelled_by_the_teacher_elsewhere(tmp_path / "mine", server)


def test_a_student_deeper_than_its_teacher_stops_before_the_work(colours, tiny_folder):
    done = slmops("run", "2", "-p", f"dataset={colours}", "-p", f"base_model={tiny_folder}", "-p", "student_layers=9")
    assert done.returncode == 1
    assert "in cell 3: A student of 9 layers cannot be cut from 4: take 2 to 4." in done.stderr


def test_doctor_says_what_is_missing(tmp_path):
    done = slmops("doctor", env={"SLMOPS_HOME": str(tmp_path / "empty"), "SSL_CERT_FILE": str(tmp_path / "no.pem")})
    assert done.returncode == 1
    assert "no base model               not yet: slmops fetch\n" in done.stdout
    assert re.search(r"^no SSL_CERT_FILE .*no.pem: there is no such file: correct it", done.stdout, re.MULTILINE)


def test_doctor_finds_nothing_missing(base_folder, monkeypatch):
    for name in [name for name in os.environ if doctor.NETWORK.fullmatch(name)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(settings, "cores", lambda: 2)  # parallel tests get one each
    done = testing.CliRunner().invoke(cli.app, ["doctor"])
    assert done.exit_code == 0 and "\nno " not in done.output and done.output.startswith("ok Python"), done.output


def findings(*names):
    rows = {finding.what: finding for finding in doctor.findings()}
    return [(rows[name].good, rows[name].found) for name in names]


def test_doctor_shows_proxies_mirrors_and_certificates_without_their_secrets(tmp_path, monkeypatch):
    for name in [name for name in os.environ if doctor.NETWORK.fullmatch(name)]:
        monkeypatch.delenv(name)
    files = {"PIP_CONFIG_FILE": "pip.conf", "REQUESTS_CA_BUNDLE": "ca.pem"}
    for name, file in files.items():
        (tmp_path / file).write_text("")
        monkeypatch.setenv(name, str(tmp_path / file))
    index = "index-url"
    (tmp_path / "pip.conf").write_text(f"[global]\n{index}=https://me:hush@mirror.example/py?token=hush\ntimeout=9\n")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hu@sh@proxy.example:3128")
    monkeypatch.setenv("http_proxy", "me:hush@proxy.example:3128")
    monkeypatch.setenv("ALL_PROXY", "http://")
    monkeypatch.setenv("NO_PROXY", "localhost,[::1],.intern")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a:hush@x.example/1 https://hush@y.example/2")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    rows = {finding.what: finding for finding in doctor.findings()}
    assert "hush" not in str(rows) and "hu@sh" not in str(rows) and "timeout" not in str(rows)
    assert rows["HTTPS_PROXY"].found == "http://***@proxy.example:3128" and rows["HTTPS_PROXY"].good
    assert rows["http_proxy"].found == "***@proxy.example:3128" and rows["http_proxy"].good
    assert rows["NO_PROXY"].found == "localhost,[::1],.intern"
    assert rows["PIP_EXTRA_INDEX_URL"].found == "https://***@x.example/1 https://***@y.example/2"
    assert rows[f"pip's global.{index}"].found == "https://***@mirror.example/py?***"
    assert rows["REQUESTS_CA_BUNDLE"].good and not rows["SSL_CERT_FILE"].good and not rows["ALL_PROXY"].good


def test_doctor_shows_what_a_container_allows(monkeypatch):
    monkeypatch.setattr(settings, "cores", lambda: 16)
    monkeypatch.setattr(settings, "cpu_quota", lambda: 1.5)
    monkeypatch.setattr(settings, "memory_limit", lambda: 3 * 10**9)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores, memory = findings("processor cores", "memory")
    assert cores == (False, "1 used: 16 by affinity, a quota of 1.5")
    assert memory[0] is False and re.fullmatch(r"3\.0 GB allowed here, [\d.]+ GB in the machine", memory[1])


def test_doctor_looks_at_the_place_and_the_python(tmp_path, monkeypatch):
    root = tmp_path / "Müller & Söhne"
    (root / "data" / "support_desk").mkdir(parents=True)
    (root / "data" / "support_desk" / "train.jsonl").write_bytes(b"{}\r\n")
    subprocess.run(["git", "init", "-q", root], check=True)
    subprocess.run(["git", "-C", root, "config", "core.autocrlf", "true"], check=True)
    monkeypatch.setattr(settings, "ROOT", root)
    monkeypatch.setattr(sys, "version_info", (3, 15, 0))
    place, ends, python = findings("folder of the course", "line ends", "Python")
    assert place == (True, f"{root} (with ' ' '&' 'ö' 'ü')")
    assert ends == (False, "CRLF; git's core.autocrlf is true")
    assert python[0] is False and python[1].endswith("(supported: 3.11 to 3.14)")
    monkeypatch.setattr(settings, "ROOT", tmp_path / f"a{os.pathsep}b")
    monkeypatch.setenv("PATH", str(tmp_path))
    place, ends = findings("folder of the course", "line ends")
    assert place[0] is False and ends == (True, "LF; git's core.autocrlf is not to be asked: there is no git")


def test_doctor_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # its import fails
    assert findings("bf16 arithmetic") == [(True, "unknown")]


def test_doctor_shows_the_graphics_processor(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.delenv("SLMOPS_DEVICE", raising=False)
    assert findings("graphics processor") == [(True, "cpu is used, cuda is here (SLMOPS_DEVICE=auto)")]
    monkeypatch.setenv("SLMOPS_DEVICE", "tpu")
    assert findings("graphics processor") == [(False, "SLMOPS_DEVICE is 'tpu': give auto, cpu, cuda or mps.")]


def test_ledger_without_rows_of_no_profile_and_damaged(tmp_path):
    assert "The ledger is empty" in slmops("ledger").stdout
    refused(slmops("ledger", "--profile", "fast"), "There is no profile 'fast': give one of full, quick.")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "claims.json").write_text("{half")
    refused(slmops("ledger"), "claims.json is damaged")


def test_a_terminal_without_the_letters(colours):
    """Labels may be in any script."""
    (colours / "train.jsonl").write_text('{"id": "1", "text": "a", "answer": {"kind": "गरम", "word": null}}\n')
    done = slmops("data", "check", colours, env={"PYTHONIOENCODING": "ascii"})
    refused(done, "problem")
    assert r"\u0917" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        "serve nowhere",
        "bench nowhere",
        "gate x --budgets x --profile till --key nowhere",
        "fetch nowhere",
        "run nowhere",
    ],
)
def test_what_is_not_there_is_one_sentence(arguments):
    refused(slmops(*arguments.split()), "nowhere")
