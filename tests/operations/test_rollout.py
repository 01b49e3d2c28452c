import json

import kubernetes_validate
import numpy
import pytest
from scipy.stats import binomtest

from slmops_lab.errors import CourseError
from slmops_lab.operations import rollout
from slmops_lab.operations.fleet import FAILED, NEW, Fleet

OLD = numpy.repeat([1, 0], [700, 300])
WORSE = numpy.repeat([1, 0], [640, 360])


def plan(messages=0, **changes):
    canary = {"name": "canary", "share": 0.05, "messages": messages} | changes
    return rollout.Plan(groups=[canary, {"name": "rest", "share": 0.95}])


def fleet(new=OLD, size=1_000, seed=0, **more):
    return Fleet(size, plan(), {"old": OLD, "new": new}, 27, seed, **more)


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


def test_how_often_a_worse_version_is_found_and_a_good_one_stopped(tmp_path):
    needed = rollout.messages_needed(0.7, 0.06, alpha=0.05, power=0.9)
    ends = {"worse": [], "same": []}
    for name, right in (("worse", WORSE), ("same", OLD)):
        for seed in range(40):
            controller = rollout.Controller(plan(needed), tmp_path / f"{name}{seed}.json", "2.0.0")
            fleet(right, size=2_000, seed=seed).run(controller, hours=400)
            ends[name].append(controller.state["status"] == "rolled back")
    assert binomtest(sum(ends["worse"]), 40, 0.9, alternative="less").pvalue > 0.001
    assert binomtest(sum(ends["same"]), 40, 0.05, alternative="greater").pvalue > 0.001


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
    path.write_text("{")
    with pytest.raises(CourseError, match="holds no rollout"):
        rollout.Controller(plan(), path, "2.0.0")


def test_the_same_seed_is_the_same_fleet(tmp_path):
    runs = [fleet(seed=3).run(rollout.Controller(plan(), tmp_path / f"{i}.json", "2.0.0")) for i in range(2)]
    assert runs[0].equals(runs[1])


@pytest.mark.parametrize(
    "groups",
    [
        [],
        [{"name": "a", "share": 0.5}],
        [{"name": "a", "share": 0}, {"name": "b", "share": 1}],
        [{"name": "a", "share": 1, "eror": 0.1}],
    ],
)
def test_a_plan_that_is_none(groups):
    with pytest.raises(ValueError, match="validation error"):
        rollout.Plan(groups=groups)


def test_how_many_messages_show_a_drop():
    # Fleiss, Levin and Paik 2003: the number grows with 1 / drop^2, and with what is asked of it
    assert rollout.messages_needed(0.7, 0.05) > 3.5 * rollout.messages_needed(0.7, 0.1)
    assert rollout.messages_needed(0.7, 0.05, power=0.99) > rollout.messages_needed(0.7, 0.05)
    with pytest.raises(CourseError, match="cannot drop by 0.8"):
        rollout.messages_needed(0.7, 0.8)


def test_p_worse_is_small_only_where_the_new_one_is_worse():
    assert rollout.p_worse(600, 1000, 700, 1000) < 0.001
    assert rollout.p_worse(700, 1000, 600, 1000) > 0.999
    assert rollout.p_worse(0, 0, 5, 10) == rollout.p_worse(10, 10, 10, 10) == 1.0


def test_the_daemon_set_is_valid_kubernetes():
    told = rollout.daemon_set(plan(), "desk", "registry.example/desk", "2.0.0")
    kubernetes_validate.validate(told, "1.31", strict=True)
    assert told["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == "5%"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**told, "spec": {**told["spec"], "replica": 3}}, "1.31", strict=True)


def test_the_hawkbit_request_says_the_same(tmp_path):
    groups = [{"name": n, "share": s} for n, s in (("canary", 0.02), ("early", 0.18), ("rest", 0.8))]
    told = rollout.hawkbit_request(rollout.Plan(groups=groups), "desk 2.0.0", 6, "attribute.model==till")
    left, shares = 1.0, []
    for group in told["groups"]:  # its per cents are of the targets that are left
        shares.append(left * group["targetPercentage"] / 100)
        left -= shares[-1]
        assert group["errorAction"]["action"] == "PAUSE"
        assert group["successAction"]["action"] == "NEXTGROUP"
        assert group["successCondition"] == {"condition": "THRESHOLD", "expression": "90"}
    assert shares == pytest.approx([0.02, 0.18, 0.8], abs=1e-6)
    assert told["distributionSetId"] == 6 and json.dumps(told)


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
