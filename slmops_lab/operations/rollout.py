"""Bring a new version to a fleet in groups; halt and roll back where it is worse.

Groups with thresholds work as in Eclipse hawkBit (https://eclipse.dev/hawkbit/rollout-management/). A
`Controller` decides and keeps what it decided in a file; it moves no device itself, that is for the fleet (here a
simulated one, see `fleet`); what the answers say is for `canary`. A decision costs microseconds and one small file.
"""

import json
import math
import re
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal

import pandas
import pydantic
import yaml

from slmops_lab.errors import CourseError
from slmops_lab.files import write_json
from slmops_lab.operations.canary import evidence, p_worse
from slmops_lab.operations.canary import messages_needed as messages_needed  # for those who plan


class Group(pydantic.BaseModel, extra="forbid"):
    """A part of the fleet that is updated together."""

    name: str
    share: float = pydantic.Field(gt=0, le=1)  # of the fleet
    success: float = pydantic.Field(0.9, gt=0, le=1)  # of the group must run the new version ...
    error: float = pydantic.Field(0.05, gt=0, le=1)  # ... and fewer than this may have failed
    messages: int = pydantic.Field(0, ge=0)  # judged answers of the new version before it may pass


class Plan(pydantic.BaseModel, extra="forbid"):
    """Groups in their order, and how sure a 'worse' must be.

    A version that is not worse is stopped with a probability of at most `alarm` plus `alpha` for each group with
    `messages`: a little level for an alarm that looks at every decision and stops a disaster, nearly all of it
    for the groups' own looks (the idea of Haybittle 1971, https://doi.org/10.1259/0007-1285-44-526-793, here with
    `canary.evidence`, whose promise holds for any number of looks).
    """

    groups: list[Group] = pydantic.Field(min_length=1)
    alpha: float = pydantic.Field(0.05, gt=0, lt=0.5)  # of each group's look
    alarm: float = pydantic.Field(0.0, ge=0, lt=0.5)  # of all other looks together; 0: nobody looks before

    def __init__(self, **given):
        """Raises CourseError for what is no plan."""
        try:
            super().__init__(**given)
        except pydantic.ValidationError as error:
            raise CourseError(f"This is no plan of a rollout: {_problem(error)}.") from None

    @pydantic.model_validator(mode="after")
    def _whole(self):
        if abs(sum(group.share for group in self.groups) - 1) > 1e-6:
            raise ValueError("the shares of the groups do not add up to 1")
        return self


Counts = tuple[pydantic.NonNegativeInt, pydantic.NonNegativeInt, pydantic.NonNegativeInt, pydantic.NonNegativeInt]


class State(pydantic.BaseModel, extra="forbid"):
    """What a `Controller` keeps in its file."""

    release: str
    plan: dict
    open: int = pydantic.Field(0, ge=0)  # groups that may update
    status: Literal["running", "rolled back", "done"] = "running"
    log: list[tuple[pydantic.NonNegativeFloat, str, str]] = []  # hour, decision, why
    counted: dict[Literal["new", "old"], tuple[pydantic.NonNegativeInt, pydantic.NonNegativeInt]] = {}
    looked: Counts = (0, 0, 0, 0)  # judged answers at the last look
    evidence: pydantic.FiniteFloat = 0.0  # that the new version is worse, of all looks

    @pydantic.model_validator(mode="after")
    def _whole(self):
        if len(self.counted) != (2 if self.open else 0):
            raise ValueError("the groups that are open and the answers that were counted do not fit together")
        return self


def _problem(error):
    """The first complaint of a pydantic error, in one line."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return (f"{where}: " if where else "") + first["msg"].removeprefix("Value error, ")


class Controller:
    """Decides how far the rollout of `release` goes, and keeps it in a file: another one can go on from there.

    It says what should be (groups open, or everything rolled back) each time it is asked, so that a
    decision that was noted but not carried out is carried out later. Raises CourseError where the file is none of this
    plan and release.
    """

    def __init__(self, plan, path, release):
        self.plan, self.path = plan, Path(path)
        fresh = State(release=str(release), plan=plan.model_dump())
        self.state = (self._kept(fresh) if self.path.exists() else fresh).model_dump()

    def _kept(self, fresh):
        try:
            kept = State.model_validate_json(self.path.read_bytes())
        except pydantic.ValidationError as error:
            raise CourseError(f"{self.path} holds no rollout ({_problem(error)}): give another file.") from None
        except OSError as error:
            raise CourseError(f"{self.path} cannot be read: {error.strerror}.") from None
        for what in ("release", "plan"):
            if getattr(kept, what) != getattr(fresh, what):
                raise CourseError(f"{self.path} belongs to a rollout of another {what}: give another file.")
        if kept.open > len(self.plan.groups):
            raise CourseError(f"{self.path} holds no rollout (more groups are open than there are): give another file.")
        return kept

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
                state["counted"], state["looked"] = seen["judged"], _flat(seen["judged"])
            else:
                self._judge(seen)
            write_json(self.path, state)  # before anything happens
        return state["open"], state["status"] == "rolled back"

    def _judge(self, seen):
        state = self.state
        running = list(zip(self.plan.groups, seen["groups"], strict=True))[: state["open"]]
        for group, count in running:
            if count["failed"] > 0 and count["failed"] >= group.error * count["size"]:
                why = f"{group.name}: {count['failed']} of {count['size']} updates failed"
                return self._end(seen, "rolled back", why)
        if self.plan.alarm and self._alarmed(seen["judged"]):
            new, old = (_percent(seen["judged"][version]) for version in ("new", "old"))
            why = f"{running[-1][0].name}: {new} right, before {old}, alarm ({_p(math.exp(-state['evidence']))})"
            return self._end(seen, "rolled back", why)
        new = [now - before for now, before in zip(seen["judged"]["new"], state["counted"]["new"], strict=True)]
        old = seen["judged"]["old"]  # since the beginning: of the last group nobody is left on the old version
        group, count = running[-1]  # the newest has to pass
        if count["new"] < group.success * count["size"] or min(new[1], old[1]) < group.messages:
            return None
        p = p_worse(*new, *old) if group.messages else 1.0
        shares = f"{_percent(new)} right, before {_percent(old)}, {_p(p)}" if group.messages else "no look at answers"
        if p < self.plan.alpha:
            return self._end(seen, "rolled back", f"{group.name}: {shares}")
        if state["open"] == len(self.plan.groups):
            return self._end(seen, "done", f"{group.name}: {shares}")
        following = self.plan.groups[state["open"]]
        self._note(seen, "next group", f"{group.name}: {shares}; now {following.name}")
        state["open"] += 1
        state["counted"] = seen["judged"]
        return None

    def _alarmed(self, judged):
        """Take in the answers since the last look: do all of them together say 'worse'?"""
        state, now = self.state, _flat(judged)
        fresh = [count - before for count, before in zip(now, state["looked"], strict=True)]
        state["evidence"] += evidence(state["looked"], fresh)
        state["looked"] = now
        return state["evidence"] >= -math.log(self.plan.alarm)

    def _end(self, seen, status, why):
        self.state["status"] = status
        self._note(seen, status, why)

    def _note(self, seen, decision, why):
        self.state["log"].append([round(seen["hour"], 1), decision, why])


def _percent(counts):
    right, all_ = counts
    return f"{100 * right / all_:.1f} % of {all_:,}" if all_ else "none"


def _flat(judged):
    """(new right, new all, old right, old all), as `canary` wants them."""
    return [*judged["new"], *judged["old"]]


def _p(p):
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def hawkbit_request(plan, name, distribution_set, fleet_filter):
    """The plan as body of hawkBit's POST /rest/v1/rollouts, a dict (templates/hawkbit_rollout.yaml).

    distribution_set: number of the distribution set that holds the package. fleet_filter: target filter
    query, such as 'attribute.model==till'. hawkBit counts finished and failed updates. The look at answers
    stays with us: a group that needs one ends in a pause, and whoever has looked calls `resume`.
    """
    groups, left = [], 1.0
    for group in plan.groups:
        of_rest = 100.0 if group is plan.groups[-1] else 100 * group.share / left  # hawkBit's per cents are of the rest
        left -= group.share
        filled = _filled(
            "hawkbit_group.yaml",
            name=group.name,
            description=f"{100 * group.share:g} % of the fleet",
            of_rest=round(of_rest, 4),
            success=f"{100 * group.success:g}",
            error=f"{100 * group.error:g}",
            then="PAUSE" if group.messages else "NEXTGROUP",
        )
        groups.append(filled)
    told = {"name": name, "description": f"{name}, in {len(groups)} groups", "groups": groups}
    return _filled("hawkbit_rollout.yaml", **told, distribution_set=distribution_set, fleet_filter=fleet_filter)


def daemon_set(plan, name, image, version, port=8000):
    """The same for a cluster of edge nodes (k3s): a Kubernetes DaemonSet, a dict (templates/daemon_set.yaml).

    Nodes are replaced a canary's share at a time; Kubernetes looks at health only, not at answers. The model is
    mounted from /var/lib/slmops/NAME/VERSION of each node, where whoever verifies packages there has to put it, the
    token comes from the key `token` of the Secret NAME. name is written as Kubernetes wants names (lower case, - for
    whatever is no letter or digit), a + in the version as _ in the image's tag, which knows no +.
    """
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-")
    if not label:
        raise CourseError(f"Kubernetes cannot name anything {name!r}: give a name with a letter or a digit.")
    return _filled(
        "daemon_set.yaml",
        name=label,
        image=f"{image}:{version.replace('+', '_')}",
        step=f"{max(1, round(100 * plan.groups[0].share))}%",
        model=f"/var/lib/slmops/{label}/{version}",
        port=port,
        port_text=str(port),
    )


def _filled(template, **values):
    """A template of this package with its $names replaced: a dict. What is JSON is YAML, so no value breaks out."""
    text = resources.files(__package__).joinpath("templates", template).read_text(encoding="utf-8")
    return yaml.safe_load(Template(text).substitute({name: json.dumps(value) for name, value in values.items()}))
