import json

import numpy
import pytest
from scipy.stats import binomtest

from slmops_lab.errors import CourseError
from slmops_lab.operations import canary, rollout
from slmops_lab.operations.fleet import FAILED, NEW, Fleet

OLD = numpy.repeat([1, 0], [700, 300])
WORSE = numpy.repeat([1, 0], [640, 360])


def plan(messages=0, alarm=0.0, **changes):
    first = {"name": "canary", "share": 0.05, "messages": messages} | changes
    return rollout.Plan(groups=[first, {"name": "rest", "share": 0.95}], alarm=alarm)


def fleet(new=OLD, size=1_000, seed=0, package_mb=27, **more):
    return Fleet(size, plan(), {"old": OLD, "new": new}, package_mb, seed, **more)


def test_a_good_version_reaches_the_fleet(tmp_path):
    devices = fleet()
    controller = rollout.Controller(plan(), tmp_path / "state.json", "2.0.0")
    history = devices.run(controller)
    assert controller.state["status"] == "done"
    assert list(controller.log["decision"]) == ["start", "next group", "done"]
    assert history["new version"].iloc[-1] >= 0.9 * 950
    assert history["hour"].is_monotonic_increasing


def test_a_slightly_worse_version_is_stopped_at_the_canary_and_goes_back(tmp_path):
    needed = rollout.messages_needed(0.7, 0.06)
    devices = fleet(WORSE)
    controller = rollout.Controller(plan(needed), tmp_path / "state.json", "2.0.0")
    history = devices.run(controller)
    assert controller.state["status"] == "rolled back"
    assert "canary: 6" in controller.log["why"].iloc[-1]
    assert history["new version"].max() <= 50  # nobody outside of the canary ever had it
    assert history["new version"].iloc[-1] == 0


def judged_until_stopped(path, alarm):
    """(judged answers of a new version that is never right until it is stopped, why it was)."""
    devices, controller = fleet([0]), rollout.Controller(plan(600, alarm), path, "2.0.0")
    while controller.state["status"] == "running":
        devices.run(controller, hours=0.5)
    return controller.state["looked"][1] if alarm else devices.judged["new"][1], controller.log["why"].iloc[-1]


def test_an_alarm_stops_a_disaster_long_before_the_look(tmp_path):
    answers, why = judged_until_stopped(tmp_path / "alarm.json", alarm=0.01)
    assert 10 < answers <= 60
    assert why.startswith(f"canary: 0.0 % of {answers} right, before 6") and why.endswith("alarm (p < 0.001)")
    assert judged_until_stopped(tmp_path / "look.json", alarm=0.0)[0] >= 600


def test_an_alarm_lets_a_good_version_pass(tmp_path):
    controller = rollout.Controller(plan(600, alarm=0.01), tmp_path / "state.json", "2.0.0")
    fleet().run(controller)
    assert list(controller.log["decision"]) == ["start", "next group", "done"]
    assert controller.state["looked"][1] > 600  # it did look


def look(hour, new, old):
    groups = [{"size": 50, "new": 50, "failed": 0}, {"size": 950, "new": 0, "failed": 0}]
    return {"hour": hour, "groups": groups, "judged": {"new": new, "old": old}}


def test_an_alarm_adds_up_looks_and_another_controller_keeps_the_sum(tmp_path):
    judged = [((0, 0), (0, 0)), ((6, 12), (70, 100)), ((11, 24), (140, 200)), ((15, 36), (210, 300))]
    path, told = tmp_path / "state.json", 0.0
    for hour, (new, old) in enumerate(judged):
        controller = rollout.Controller(plan(600, alarm=0.01), path, "2.0.0")
        assert controller.decide(look(hour, new, old)) == (1, False)
        if hour:
            past = [*judged[hour - 1][0], *judged[hour - 1][1]]
            told += canary.evidence(past, numpy.subtract([*new, *old], past))
    kept = json.loads(path.read_text())
    assert kept["looked"] == [15, 36, 210, 300] and kept["evidence"] == pytest.approx(told) and 1 < told < 4.6
    assert rollout.Controller(plan(600, alarm=0.01), path, "2.0.0").decide(look(9, (15, 50), (280, 400))) == (1, True)
    assert "30.0 % of 50 right, before 70.0 % of 400, alarm (p < 0.001)" in json.loads(path.read_text())["log"][-1][2]


def test_how_often_a_worse_version_is_found_and_a_good_one_stopped(tmp_path):
    needed = rollout.messages_needed(0.7, 0.06, alpha=0.05, power=0.9)
    ends = {"worse": [], "same": []}
    for name, right in (("worse", WORSE), ("same", OLD)):
        for seed in range(20):
            controller = rollout.Controller(plan(needed), tmp_path / f"{name}{seed}.json", "2.0.0")
            fleet(right, seed=seed).run(controller, hours=400)
            ends[name].append(controller.state["status"] == "rolled back")
    assert binomtest(sum(ends["worse"]), 20, 0.9, alternative="less").pvalue > 0.001
    assert binomtest(sum(ends["same"]), 20, 0.05, alternative="greater").pvalue > 0.001


def test_a_tampered_package_runs_nowhere(tmp_path):
    devices = fleet(tampered=True)
    controller = rollout.Controller(plan(), tmp_path / "state.json", "2.0.0")
    devices.run(controller)
    assert controller.state["status"] == "rolled back"
    assert not (devices.state == NEW).any()
    assert set(devices.why.values()) == {"the hash is not the signed one"}


def test_real_devices_are_asked_and_a_refusal_counts(tmp_path):
    asked = []

    def real(device):
        asked.append(device)
        if len(asked) == 1:
            return [1, 0, 1]
        raise CourseError("model.onnx was changed after it was signed")

    devices = fleet(real=real, reals=10)
    controller = rollout.Controller(plan(), tmp_path / "state.json", "2.0.0")
    devices.run(controller)
    assert devices.real_answers == [1, 0, 1]
    assert set(asked) <= devices.reals
    assert set(devices.why.values()) >= {"model.onnx was changed after it was signed"}
    assert controller.state["status"] == "rolled back"  # a tenth of the canary is more than its threshold


def test_another_controller_goes_on_where_the_killed_one_was(tmp_path):
    devices = fleet()
    path = tmp_path / "state.json"
    first = rollout.Controller(plan(600), path, "2.0.0")
    devices.run(first, hours=3)
    before = devices.history[-1]
    del first
    devices.run(None, hours=6)  # nobody decides
    second = rollout.Controller(plan(600), path, "2.0.0")
    assert second.state["open"] == 1
    devices.run(second)
    assert list(second.log["decision"]) == ["start", "next group", "done"]
    assert devices.history[-1][1] > before[1]


def test_a_decision_that_was_noted_but_not_carried_out_is_carried_out(tmp_path):
    devices = fleet()
    path = tmp_path / "state.json"
    rollout.Controller(plan(), path, "2.0.0").decide(devices.seen())  # killed right after it was written
    assert json.loads(path.read_text())["open"] == 1
    controller = rollout.Controller(plan(), path, "2.0.0")
    devices.run(controller)
    assert list(controller.log["decision"]) == ["start", "next group", "done"]


def test_the_file_of_another_plan_or_of_nothing(tmp_path):
    path = tmp_path / "state.json"
    rollout.Controller(plan(), path, "2.0.0").decide(fleet().seen())
    with pytest.raises(CourseError, match="belongs to a rollout of another plan"):
        rollout.Controller(plan(messages=5), path, "2.0.0")
    with pytest.raises(CourseError, match="belongs to a rollout of another release"):
        rollout.Controller(plan(), path, "3.0.0")  # else it would go to everybody at once


GOOD = {"release": "2.0.0", "plan": plan().model_dump(), "open": 1, "status": "running", "log": [[0.0, "start", "x"]]}
GOOD["counted"] = {"new": [0, 0], "old": [0, 0]}


@pytest.mark.parametrize(
    "kept",
    [
        b"",
        b"[]",
        b"7",
        b"null",
        b"{",
        b"\xff\xfe",
        json.dumps(GOOD)[:-9].encode(),  # truncated
        b'{"release": "2.0.0"}',
        GOOD | {"opened": 1},
        GOOD | {"open": -1},
        GOOD | {"open": 3},
        GOOD | {"open": "all"},
        GOOD | {"open": 0},
        GOOD | {"status": "maybe"},
        GOOD | {"log": [["now", "start", "x"]]},
        GOOD | {"log": [[0.0, "start"]]},
        GOOD | {"counted": {}},
        GOOD | {"counted": {"new": [0, 0]}},
        GOOD | {"counted": {"new": [0, -1], "old": [0, 0]}},
        GOOD | {"looked": [0, 0, -1, 0]},
        GOOD | {"looked": [0, 0]},
        GOOD | {"evidence": float("nan")},
    ],
)
def test_a_file_that_holds_no_rollout(tmp_path, kept):
    path = tmp_path / "state.json"
    path.write_bytes(kept if isinstance(kept, bytes) else json.dumps(kept).encode())
    with pytest.raises(CourseError, match="holds no rollout .*: give another file") as error:
        rollout.Controller(plan(), path, "2.0.0")
    assert "\n" not in str(error.value)


def test_the_file_of_a_rollout_is_read_and_a_folder_is_not(tmp_path):
    path = tmp_path / "state.json"
    path.write_text(json.dumps(GOOD))
    assert rollout.Controller(plan(), path, "2.0.0").state["open"] == 1
    with pytest.raises(CourseError, match="cannot be read"):
        rollout.Controller(plan(), tmp_path, "2.0.0")


def test_the_same_seed_is_the_same_fleet(tmp_path):
    runs = [fleet(seed=3).run(rollout.Controller(plan(), tmp_path / f"{i}.json", "2.0.0")) for i in range(2)]
    assert runs[0].equals(runs[1])


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"size": 10}, "10 devices leave a group of the plan without one"),
        ({"size": 0}, "0 devices leave a group"),
        ({"size": -5}, "-5 devices leave a group"),
        ({"seed": 2**33}, "seed must be a whole number from 0 to 4,294,967,295, not 8589934592"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"new": []}, "needs measured answers of both versions"),
        ({"reals": 2}, "need a function"),
        ({"package_mb": -27}, "must be larger than -27 MB"),
    ],
)
def test_a_fleet_that_is_none(wrong, sentence):
    with pytest.raises(CourseError, match=f"^This is no fleet: .*{sentence}"):
        fleet(**wrong)


@pytest.mark.parametrize(
    "groups, sentence",
    [
        ([], "groups: List should have at least 1 item"),
        ([{"name": "a", "share": 0.5}], "the shares of the groups do not add up to 1"),
        ([{"name": "a", "share": 0}, {"name": "b", "share": 1}], "groups.0.share: Input should be greater than 0"),
        ([{"name": "a", "share": 1, "eror": 0.1}], "groups.0.eror: Extra inputs are not permitted"),
        ([{"name": "a", "share": 1, "messages": -1}], "groups.0.messages: Input should be greater than or equal to 0"),
    ],
)
def test_a_plan_that_is_none(groups, sentence):
    with pytest.raises(CourseError, match=f"^This is no plan of a rollout: {sentence}") as error:
        rollout.Plan(groups=groups)
    assert "\n" not in str(error.value)


def test_failures_of_a_group_that_has_passed_still_count(tmp_path):
    controller = rollout.Controller(plan(), tmp_path / "state.json", "2.0.0")
    devices = fleet()
    devices.run(controller, hours=2)
    while controller.state["open"] < 2:
        devices.run(controller, hours=1)
    devices.state[numpy.flatnonzero(devices.group == 0)[:10]] = FAILED
    devices.run(controller, hours=1)
    assert controller.state["status"] == "rolled back"
    assert "canary: 1" in controller.log["why"].iloc[-1]
