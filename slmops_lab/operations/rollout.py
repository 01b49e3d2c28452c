"""Bring a new version to a fleet in groups; halt and roll back where it is worse.

Groups with thresholds work as in Eclipse hawkBit (https://eclipse.dev/hawkbit/rollout-management/). A
`Controller` decides and keeps what it decided in a file; it moves no device itself, that is for the fleet (here a
simulated one, see `fleet`). A decision costs microseconds and one small file.
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


class State(pydantic.BaseModel, extra="forbid"):
    """What a `Controller` keeps in its file."""

    release: str
    plan: dict
    open: int = pydantic.Field(0, ge=0)  # groups that may update
    status: Literal["running", "rolled back", "done"] = "running"
    log: list[tuple[pydantic.NonNegativeFloat, str, str]] = []  # hour, decision, why
    counted: dict[Literal["new", "old"], tuple[pydantic.NonNegativeInt, pydantic.NonNegativeInt]] = {}

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


def messages_needed(before, drop, alpha=0.05, power=0.9):
    """Judged answers per version that show a drop of the share of right ones, from `before`, by `drop`.

    Two proportions, one-sided, normal approximation (Fleiss, Levin and Paik 2003, chapter 4). Raises CourseError
    where there is no such drop, or alpha and power leave nothing to plan.
    """
    if not 0 < alpha < power < 1:
        raise CourseError(f"Give 0 < alpha < power < 1, not an alpha of {alpha:g} and a power of {power:g}.")
    if not 0 < drop < before < 1:
        raise CourseError(f"A share of {before:g} cannot drop by {drop:g}: give 0 < drop < before < 1.")
    after = before - drop
    middle = (before + after) / 2
    sure, found = norm.ppf(1 - alpha), norm.ppf(power)
    spread = sure * math.sqrt(2 * middle * (1 - middle))
    spread += found * math.sqrt(before * (1 - before) + after * (1 - after))
    return math.ceil((spread / drop) ** 2)


def p_worse(new_right, new_all, old_right, old_all):
    """p-value of 'the new version is not worse', two proportions, one-sided; 1.0 without any answers.

    Counts of right and of all answers of either version; pooled variance, normal approximation (as in
    `messages_needed`). Raises CourseError where more are right than there are.
    """
    if not (0 <= new_right <= new_all and 0 <= old_right <= old_all):
        raise CourseError(
            f"Right answers are some of all answers, not {new_right} of {new_all}, {old_right} of {old_all}."
        )
    if not new_all or not old_all:
        return 1.0
    pooled = (new_right + old_right) / (new_all + old_all)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / new_all + 1 / old_all))
    return float(norm.cdf((new_right / new_all - old_right / old_all) / spread)) if spread else 1.0


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
                state["counted"] = seen["judged"]
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
        new = [now - before for now, before in zip(seen["judged"]["new"], state["counted"]["new"], strict=True)]
        old = seen["judged"]["old"]  # since the beginning: of the last group nobody is left on the old version
        group, count = running[-1]  # the newest has to pass
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
