"""Steps: what they read, when they are repeated, and what they say to wrong inputs."""

import csv
import json
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from slmops_lab.course import cli
from slmops_lab.deployment import package
from slmops_lab.errors import CourseError
from slmops_lab.operations import pipeline, report, steps, work

WORDS = {"warm": ["red", "orange"], "cold": ["blue", "green"]}
COLUMNS = {"text_column": "text", "label_column": "category"}
BOTH = ["--text-column", "text", "--label-column", "category"]


@pytest.fixture
def messages(tmp_path):
    """A CSV file of 40 labelled messages and 8 without a label."""
    rows = [(f"please paint {n} {colour}", kind) for n in range(10) for kind, of in WORDS.items() for colour in of]
    rows += [(f"a {colour} boat {n}", "") for n in range(2) for of in WORDS.values() for colour in of]
    with open(tmp_path / "messages.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "category"), *rows])
    return tmp_path / "messages.csv"


@pytest.fixture
def data(messages, tmp_path):
    return steps.run("import", [messages], tmp_path / "data", COLUMNS).folder


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def test_rows_without_a_label_become_the_pool(data):
    assert len(lines(data, "pool.jsonl")) == 8 and not any("answer" in one for one in lines(data, "pool.jsonl"))
    assert len(lines(data, "train.jsonl")) == 32 and len(lines(data, "test.jsonl")) == 8


def test_a_finished_step_is_kept_until_something_that_counts_changes(messages, tmp_path):
    out = tmp_path / "data"
    assert not steps.run("import", [messages], out, COLUMNS).kept
    assert steps.run("import", [messages], out, COLUMNS).kept
    assert not steps.run("import", [messages], out, COLUMNS | {"seed": 1}).kept  # a setting
    messages.write_text(messages.read_text() + "please paint it teal,cold\n")
    assert not steps.run("import", [messages], out, COLUMNS | {"seed": 1}).kept  # an input


def test_other_code_makes_it_again(messages, tmp_path, monkeypatch):
    steps.run("import", [messages], tmp_path / "data", COLUMNS)
    monkeypatch.setattr(steps, "code_version", lambda: "another")
    assert not steps.run("import", [messages], tmp_path / "data", COLUMNS).kept


def test_a_folder_that_was_changed_is_made_again_and_is_no_input(messages, data, tmp_path):
    (data / "train.jsonl").write_text("{}\n")
    with pytest.raises(CourseError, match=r"not as the step import left it \(train.jsonl was changed\)"):
        steps.run("plan", [data], tmp_path / "plan")
    assert not steps.run("import", [messages], data, COLUMNS).kept
    (data / "more.txt").write_text("mine")
    with pytest.raises(CourseError, match="more.txt is new"):
        steps.run("plan", [data], tmp_path / "plan")
    (data / "more.txt").unlink()
    (data / "test.jsonl").unlink()
    with pytest.raises(CourseError, match="test.jsonl is missing"):
        steps.run("plan", [data], tmp_path / "plan")


def test_what_no_step_has_made_is_not_overwritten(messages, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(CourseError, match="was not made by a step"):
        steps.run("import", [messages], tmp_path / "mine", COLUMNS)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def of_another_version(folder):
    told = json.loads((folder / "step.json").read_text())
    (folder / "step.json").write_text(json.dumps(told | {"format": 0}))


@pytest.mark.parametrize(
    "harm",
    [
        of_another_version,
        lambda folder: (folder / "step.json").write_text("{"),
        lambda f: (f / "step.json").write_text("[]"),
    ],
)
def test_a_folder_of_another_version_is_said_to_be(data, tmp_path, harm):
    harm(data)
    with pytest.raises(CourseError, match="is damaged or of another version: remove"):
        steps.run("plan", [data], tmp_path / "plan")


@pytest.mark.parametrize(
    ("name", "inputs", "given", "said"),
    [
        ("bake", [], {}, "There is no step 'bake': known are import, plan, tune"),
        ("plan", [], {}, "The step plan needs data, and no --in is that: the step import makes it"),
        ("import", [], COLUMNS, "needs csv, and no --in is that: it is where your messages are"),
        ("tune", ["data", "data"], {}, "are both data: the step tune needs one"),
        ("tune", ["nowhere"], {}, "There is no folder .*nowhere: the step that makes it has to run before"),
        ("tune", ["empty"], {}, "empty is no folder that a step has made, and no data folder: it has no step.json"),
        ("gate", ["data"], {}, "The step gate has no use for .*data, which is a folder of data: give scores"),
        (
            "tune",
            ["data"],
            {"epoch": 3},
            "The step tune has no setting 'epoch': it has base, epochs, learning_rate, seed",
        ),
        ("tune", ["data"], {"epochs": -1}, "tune: epochs: Input should be greater than 0, not -1"),
        ("tune", ["data"], {"epochs": "many"}, "tune: epochs: Input should be a valid number.*not 'many'"),
        ("tune", ["data"], {"seed": 2**32}, "tune: seed"),
        ("label", ["data"], {"least_sure": 2.0}, "label: least_sure: Input should be less than or equal to 1, not 2"),
        ("import", ["messages.csv"], {"text_column": "text"}, "The step import needs the setting 'label_column'"),
        ("export", ["data"], {}, "The step export has no use for"),
        ("export", [], {}, "The step export needs one model: give a student or a teacher"),
        (
            "import",
            ["messages.csv"],
            COLUMNS | {"test": "x.csv"},
            "There is no file x.csv, which the setting 'test' names",
        ),
    ],
)
def test_wrong_inputs_are_one_sentence_each(data, tmp_path, name, inputs, given, said):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CourseError, match=said) as refusal:
        steps.run(name, [tmp_path / one for one in inputs], tmp_path / "out", given)
    assert not (tmp_path / "out").exists() and "\n" not in str(refusal.value)


FACTS = {"test": 8, "exact_match": 0.9, "megabytes": 1.0}
LEADS = {True: {"points": 0.4, "low": 0.1, "high": 0.7}, False: {"points": 0.1, "low": -0.2, "high": 0.4}}


def found(better, **facts):
    return {"facts": FACTS | facts, "lead": LEADS[better], "rival": "counting words"}


@pytest.fixture
def scored(data, tmp_path, monkeypatch):
    """Function: scores -> their folder; the measuring itself is another test's."""

    def made(scores):
        monkeypatch.setattr(report, "measured", lambda *_: scores)
        for kind in ("teacher", "model"):
            fake = replace(steps.STEPS["tune"], function=lambda out, **_: None, needs=(), may=())
            monkeypatch.setitem(steps.STEPS, kind, fake)
            monkeypatch.setitem(steps.MAKES, kind, kind)
            steps.run(kind, [], tmp_path / kind)
        return steps.run("evaluate", [data, tmp_path / "teacher", tmp_path / "model"], tmp_path / "scores").folder

    return made


def test_the_gate_asks_for_more_than_word_counting(scored, tmp_path):
    told = steps.run("gate", [scored(found(True))], tmp_path / "verdict").facts
    assert told == {"passed": True, "reasons": []}
    shutil.rmtree(tmp_path / "scores")
    told = steps.run("gate", [scored(found(False))], tmp_path / "verdict").facts
    assert not told["passed"] and told["reasons"] == [
        "it does not clearly beat counting words: +10.0 points on 8 test messages (95 % interval -20.0 to +40.0)"
    ]


def test_the_gate_keeps_a_budget_and_sees_when_it_changes(scored, tmp_path):
    scores, budgets = scored(found(True)), tmp_path / "budgets.yaml"
    budgets.write_text("till: {at_most: {megabytes: 2}}")
    given = {"budgets": str(budgets), "profile": "till"}
    assert steps.run("gate", [scores], tmp_path / "verdict", given).facts["passed"]
    assert steps.run("gate", [scores], tmp_path / "verdict", given).kept
    budgets.write_text("till: {at_most: {megabytes: 0.5}}")
    told = steps.run("gate", [scores], tmp_path / "verdict", given)
    assert not told.kept and told.facts["reasons"] == ["megabytes is 1 (at most 0.5)"]
    with pytest.raises(CourseError, match="There is no profile"):
        steps.run("gate", [scores], tmp_path / "verdict", {"budgets": str(budgets)})


def test_no_private_key_is_written_down(data, tmp_path, tiny_onnx, monkeypatch, scored):
    private, public = package.make_keys(tmp_path / "keys")
    scores = scored(found(True))
    verdict = steps.run("gate", [scores], tmp_path / "verdict").folder
    copied = replace(
        steps.STEPS["export"],
        function=lambda out, **_: shutil.copytree(tiny_onnx, out.folder, dirs_exist_ok=True) and None,
    )
    monkeypatch.setitem(steps.STEPS, "export", replace(copied, may=()))
    model = steps.run("export", [], tmp_path / "onnx").folder
    given = {"private_key": str(private), "version": "1.2.0"}
    made = steps.run("package", [data, model, scores, verdict], tmp_path / "release", given)
    told = package.verify(made.folder / made.facts["package"], public, name="messages")
    assert told["version"] == "1.2.0" and told["metrics"]["exact_match"] == 0.9
    assert "step.json" not in package.signed_files(made.folder / made.facts["package"])
    everything = b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file() and f != private)
    secret = private.read_bytes().splitlines()[1]
    assert secret not in everything and str(private).encode() not in everything


def test_a_model_that_was_refused_is_not_packed(data, tmp_path, scored):
    scores = scored(found(False))
    verdict = steps.run("gate", [scores], tmp_path / "verdict").folder
    with pytest.raises(CourseError, match="The model is not packed: it does not clearly beat counting words"):
        steps.run(
            "package",
            [data, tmp_path / "model", scores, verdict],
            tmp_path / "out",
            {"private_key": str(scores / "scores.json")},
        )


def test_the_minutes_are_shared_out():
    took = {"read": 0.05, "tune": 0.2, "answer": 0.1, "distil": 0.1}
    told = work.shared_out(600, took, train=400, pool=1200)
    label = 0.1 + work.STUDIED * 0.05
    assert told["epochs"] == 3.0 and told["pool"] == int(120 / label) and told["seconds"] <= 600
    assert told["steps"] == int((600 - 3 * 400 * 0.2 - told["pool"] * label) / 0.1 / 2)
    assert work.shared_out(6000, took, 400, 1200)["steps"] == 3 * 1600  # six epochs of its lessons
    assert work.shared_out(6000, took, 400, 1200)["pool"] == 1200
    slow = work.shared_out(600, took | {"distil": 0.3}, 400, 1200)
    assert 100 < slow["pool"] < told["pool"] and 400 + slow["pool"] <= slow["steps"], (
        "each lesson is learned from twice"
    )
    least = work.shared_out(1, took, 400, 1200)
    assert least["epochs"] == 1.0 and least["steps"] == 200 and least["pool"] <= 1


def test_too_few_minutes_are_said_before_the_work(data, tiny_folder, tmp_path):
    with pytest.raises(
        CourseError, match=r"0.5 minutes are too few here: to learn once from 32 labelled messages takes"
    ):
        steps.run("plan", [data], tmp_path / "plan", {"minutes": 0.5, "base": str(tiny_folder)})


NAMES = list(pipeline.load(pipeline.TEMPLATE).steps)
GIVEN = dict.fromkeys(pipeline.load(pipeline.TEMPLATE).parameters) | COLUMNS | {"name": "colours", "html": False}
GIVEN |= {"minutes": 15.0, "base": "tiny", "seed": 0, "version": "1.0.0"}


@pytest.fixture
def played(monkeypatch, messages, tmp_path):
    """Function: the graph with steps that only write a file -> names of the steps that ran; one may be killed."""
    ran = []

    def run(killed=None, **more):
        ran.clear()
        for name in work.STEPS:
            monkeypatch.setitem(steps.STEPS, name, replace(steps.STEPS[name], function=player(name, killed)))
        key = tmp_path / "key.pem"
        key.write_text("secret")
        given = GIVEN | {"csv": messages, "private_key": str(key)} | more
        try:
            list(pipeline.run(pipeline.load(pipeline.TEMPLATE), given, tmp_path / "work", lambda line: None))
        except KeyboardInterrupt:
            assert killed
        return list(ran)

    def player(name, killed):
        def play(out, **given):
            ran.append(name)
            (out.folder / "made.txt").write_text(name)
            if name == killed:
                raise KeyboardInterrupt

        return play

    return run


@pytest.mark.parametrize("killed", list(work.STEPS))
def test_killed_at_any_step_no_finished_step_is_repeated(played, killed):
    order = list(work.STEPS)
    at = order.index(killed)
    assert played(killed) == order[: at + 1]
    assert played() == order[at:]
    assert played() == []


def test_another_minute_repeats_what_depends_on_it(played):
    assert played() == list(work.STEPS)
    assert played(minutes=20.0) == ["plan"]  # the fakes write the same plan, so nothing after it is new
    assert played(minutes=20.0, version="1.0.1") == ["package"]


def graph(tmp_path, text):
    (tmp_path / "graph.yaml").write_text(text)
    return pipeline.load(tmp_path / "graph.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: [", "line 1, is no YAML that can be used"),
        ("steps: {}", "name: Field required"),
        ("name: x\nsteps: {}", "steps: Dictionary should have at least 1 item"),
        ("name: x\nsteps: {a: {step: tune, in: [b]}}", "a reads 'b', which is not there"),
        ("name: x\nsteps: {a: {step: tune, in: [b]}, b: {step: import}}", "which stands below it: put it above"),
        ("name: x\nsteps: {a: {step: bake}}", "a asks for the step 'bake': known are"),
        ("name: x\nsteps: {a: {step: tune}}", "a reads no data, which the step tune needs"),
        ("name: x\nsteps: {a: {step: tune, in: [$csv]}}", r"a reads \$csv, which is none of the parameters"),
        (
            "name: x\nparameters: [csv]\nsteps: {a: {step: tune, in: [$csv]}}",
            "a reads csv, for which the step tune has no use",
        ),
        (
            "name: x\nparameters: [csv]\nsteps: {a: {step: import, in: [$csv], settings: {colour: 1}}}",
            "has the setting 'colour'",
        ),
        (
            "name: x\nparameters: [csv]\nsteps: {a: {step: import, in: [$csv], settings: {seed: $s}}}",
            r"a uses \$s, which is none",
        ),
        (
            "name: x\nparameters: [csv]\nsteps: {../a: {step: import, in: [$csv]}}",
            "'../a' cannot be the name of a folder",
        ),
        ("name: x\nsteps: {a: {stepp: import}}", "steps.a.step: Field required"),
    ],
)
def test_a_graph_is_checked_before_anything_runs(tmp_path, text, said):
    with pytest.raises(CourseError, match=said):
        graph(tmp_path, text)


def test_wrong_settings_stop_a_graph_before_its_first_step(played, tmp_path):
    with pytest.raises(CourseError, match="plan: minutes: Input should be greater than 0, not -1"):
        played(minutes=-1)
    with pytest.raises(CourseError, match="There is no file nowhere.yaml, which the setting 'budgets' names"):
        played(budgets="nowhere.yaml")
    assert not (tmp_path / "work").exists()


def test_a_model_that_does_not_beat_counting_gets_a_report_and_no_package(messages, tiny_folder, tmp_path, monkeypatch):
    given = [str(messages), *BOTH, "--out", str(tmp_path / "out"), "--base", str(tiny_folder), "--minutes", "3"]
    none = replace(steps.STEPS["label"], function=lambda **given: work.label(**(given | {"pool": 0})))
    monkeypatch.setitem(steps.STEPS, "label", none)
    with pytest.raises(CourseError, match="The model does not ship: it does not clearly beat counting words"):
        CliRunner().invoke(cli.app, ["make", *given], catch_exceptions=False)
    text, page = ((tmp_path / "out" / name).read_text(encoding="utf-8") for name in ("report.md", "report.html"))
    assert "# messages: what the model is worth" in text and "It does not ship" in text
    assert "<table>" in page and "http" not in page and not list((tmp_path / "out").glob("messages-*"))
    again = []
    with pytest.raises(CourseError, match="does not ship"):
        monkeypatch.setattr("builtins.print", lambda *said, **_: again.append(" ".join(map(str, said))))
        CliRunner().invoke(cli.app, ["make", *given], catch_exceptions=False)
    assert sum("kept, it was made before" in line for line in again) == len(NAMES) - 1
    passes = replace(steps.STEPS["gate"], function=lambda scores, out, **_: passed(out))
    monkeypatch.setitem(steps.STEPS, "gate", passes)
    shutil.rmtree(tmp_path / "out" / "work" / "verdict")
    told = CliRunner().invoke(cli.app, ["make", *given], catch_exceptions=False)
    packed = tmp_path / "out" / "messages-1.0.0"
    assert told.exit_code == 0 and any("Serve it with: slmops serve" in line for line in again)
    assert package.verify(packed, tmp_path / "out" / "public.pem")["name"] == "messages"
    assert "It may ship." in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def passed(out):
    (out.folder / "verdict.json").write_text('{"passed": true, "reasons": []}', encoding="utf-8")


def test_a_page_holds_nobody_elses_tags():
    rows = [["data", "0.1", "notes <script>alert(1)</script> | x"]]
    text = report._table(["step", "minutes", "what"], rows)
    page = report.page(text, "a <b>")
    assert "<script>" not in page and "&lt;script&gt;" in page and "a &lt;b&gt;" in page


def test_each_step_has_a_command_that_says_what_it_reads():
    for name, step in steps.STEPS.items():
        told = CliRunner().invoke(cli.app, ["step", name, "--help"], terminal_width=200)
        assert told.exit_code == 0 and all(kind in told.output for kind in step.needs), told.output


def test_a_step_from_the_command_line(messages, tmp_path):
    asked = ["step", "import", "--in", str(messages), "--out", str(tmp_path / "made"), *BOTH]
    first, second = (CliRunner().invoke(cli.app, asked) for _ in range(2))
    assert "made in" in first.output and "kept, it was made before" in second.output
