"""Bring a new version to a fleet in groups; halt and roll back where it is worse.

Groups with thresholds work as in Eclipse hawkBit (https://eclipse.dev/hawkbit/rollout-management/). The
fleet is SIMULATED, with simpy: links, offline hours, failures and customers are random numbers. What is
real is handed in: how often each version was right on measured messages, and, for some devices, a function
that verifies and runs the package itself.
"""

import json
import math
from pathlib import Path

import pandas
import pydantic
from scipy.stats import norm

from slmops_lab.errors import CourseError
from slmops_lab.files import write_json


class Group(pydantic.BaseModel, extra="forbid"):
    """A part of the fleet that is updated together."""

    name: str
    share: float = pydantic.Field(gt=0, le=1)  # of the fleet
    success: float = pydantic.Field(0.9, gt=0, le=1)  # of the group must run the new version ...
    error: float = pydantic.Field(0.05, gt=0, le=1)  # ... and fewer than this may have failed
    messages: int = pydantic.Field(0, ge=0)  # judged answers of the new version before it may pass


class Plan(pydantic.BaseModel, extra="forbid"):
    """Groups in their order, and how sure a 'worse' must be."""

    groups: list[Group] = pydantic.Field(min_length=1)
    alpha: float = pydantic.Field(0.05, gt=0, lt=0.5)  # of each group's look

    @pydantic.model_validator(mode="after")
    def _whole(self):
        if abs(sum(group.share for group in self.groups) - 1) > 1e-6:
            raise ValueError("the shares of the groups do not add up to 1")
        return self


def messages_needed(before, drop, alpha=0.05, power=0.9):
    """Judged answers per version that show a drop of the share of right ones, from `before`, by `drop`.

    Two proportions, one-sided, normal approximation (Fleiss, Levin and Paik 2003, chapter 4).
    """
    if not 0 < drop < before < 1:
        raise CourseError(f"A share of {before:g} cannot drop by {drop:g}: give 0 < drop < before < 1.")
    after = before - drop
    middle = (before + after) / 2
    sure, found = norm.ppf(1 - alpha), norm.ppf(power)
    spread = sure * math.sqrt(2 * middle * (1 - middle))
    spread += found * math.sqrt(before * (1 - before) + after * (1 - after))
    return math.ceil((spread / drop) ** 2)


def p_worse(new_right, new_all, old_right, old_all):
    """p-value of 'the new version is not worse', two proportions, one-sided; 1.0 without any answers."""
    if not new_all or not old_all:
        return 1.0
    pooled = (new_right + old_right) / (new_all + old_all)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / new_all + 1 / old_all))
    return float(norm.cdf((new_right / new_all - old_right / old_all) / spread)) if spread else 1.0


class Controller:
    """Decides how far the rollout of `release` goes, and keeps it in a file: another one can go on from there.

    It says what should be (groups open, or everything rolled back) each time it is asked, so that a
    decision that was noted but not carried out is carried out later.
    """

    def __init__(self, plan, path, release):
        self.plan, self.path = plan, Path(path)
        fresh = {
            "release": release,
            "plan": plan.model_dump(),
            "open": 0,
            "status": "running",
            "log": [],
            "counted": {},
        }
        self.state = fresh
        if self.path.exists():
            try:
                self.state = json.loads(self.path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise CourseError(f"{self.path} holds no rollout: {error}.") from None
            for what in ("release", "plan"):
                if self.state.get(what) != fresh[what]:
                    raise CourseError(f"{self.path} belongs to a rollout of another {what}: give another file.")

    @property
    def log(self):
        """What was decided when and why, as a DataFrame."""
        return pandas.DataFrame(self.state["log"], columns=["hour", "decision", "why"])

    def decide(self, seen):
        """What should be now: (number of open groups, whether to roll back).

        seen: {'hour', 'groups': [{'size', 'new', 'failed'}], 'judged': {'new' and 'old': [right, all]}},
        the latter since the rollout began.
        """
        state = self.state
        if state["status"] == "running":
            if state["open"] == 0:
                self._note(seen, "start", f"{self.plan.groups[0].name}: {seen['groups'][0]['size']} devices")
                state["open"] = 1
                state["counted"] = seen["judged"]
            else:
                self._judge(seen)
            write_json(self.path, state)  # before anything happens
        return state["open"], state["status"] == "rolled back"

    def _judge(self, seen):
        state = self.state
        for group, count in zip(self.plan.groups[: state["open"]], seen["groups"], strict=False):
            if count["failed"] > 0 and count["failed"] >= group.error * count["size"]:
                why = f"{group.name}: {count['failed']} of {count['size']} updates failed"
                return self._end(seen, "rolled back", why)
        new = [now - before for now, before in zip(seen["judged"]["new"], state["counted"]["new"], strict=True)]
        old = seen["judged"]["old"]  # since the beginning: of the last group nobody is left on the old version
        if count["new"] < group.success * count["size"] or min(new[1], old[1]) < group.messages:
            return None
        p = p_worse(*new, *old) if group.messages else 1.0
        shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        shares = f"{_percent(new)} right, before {_percent(old)}, {shown}" if group.messages else "no look at answers"
        if p < self.plan.alpha:
            return self._end(seen, "rolled back", f"{group.name}: {shares}")
        if state["open"] == len(self.plan.groups):
            return self._end(seen, "done", f"{group.name}: {shares}")
        following = self.plan.groups[state["open"]]
        self._note(seen, "next group", f"{group.name}: {shares}; now {following.name}")
        state["open"] += 1
        state["counted"] = seen["judged"]
        return None

    def _end(self, seen, status, why):
        self.state["status"] = status
        self._note(seen, status, why)

    def _note(self, seen, decision, why):
        self.state["log"].append([round(seen["hour"], 1), decision, why])


def _percent(counts):
    right, all_ = counts
    return f"{100 * right / all_:.1f} % of {all_:,}" if all_ else "none"


def hawkbit_request(plan, name, distribution_set, fleet_filter):
    """The plan as body of hawkBit's POST /rest/v1/rollouts.

    distribution_set: number of the distribution set that holds the package. fleet_filter: target filter
    query, such as 'attribute.model==till'. hawkBit counts finished and failed updates. The look at answers
    stays with us: a group that needs one ends in a pause, and whoever has looked calls `resume`.
    """
    groups, left = [], 1.0
    for group in plan.groups:
        of_rest = 100.0 if group is plan.groups[-1] else 100 * group.share / left  # hawkBit's per cents are of the rest
        left -= group.share
        groups.append(
            {
                "name": group.name,
                "description": f"{100 * group.share:g} % of the fleet",
                "targetPercentage": round(of_rest, 4),
                "successCondition": {"condition": "THRESHOLD", "expression": f"{100 * group.success:g}"},
                "successAction": {"action": "PAUSE" if group.messages else "NEXTGROUP", "expression": ""},
                "errorCondition": {"condition": "THRESHOLD", "expression": f"{100 * group.error:g}"},
                "errorAction": {"action": "PAUSE", "expression": ""},
            }
        )
    return {
        "name": name,
        "description": f"{name}, in {len(groups)} groups",
        "distributionSetId": distribution_set,
        "targetFilterQuery": fleet_filter,
        "type": "soft",
        "groups": groups,
    }


def daemon_set(plan, name, image, version, port=8000):
    """The same for a cluster of edge nodes (k3s): a Kubernetes DaemonSet as a dict.

    Nodes are replaced a canary's share at a time; Kubernetes looks at health only, not at answers.
    """
    labels = {"app": name}
    step = max(1, round(100 * plan.groups[0].share))
    probe = {"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 10}
    secret = {"name": "SLMOPS_SERVE_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": "token"}}}
    container = {
        "name": name,
        "image": f"{image}:{version}",
        "args": ["serve", "/model", "--host", "0.0.0.0", "--port", str(port)],
        "ports": [{"containerPort": port}],
        "env": [secret],
        "readinessProbe": probe,
        "resources": {"requests": {"memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {"readOnlyRootFilesystem": True, "runAsNonRoot": True, "allowPrivilegeEscalation": False},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "minReadySeconds": 30,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": f"{step}%"}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
