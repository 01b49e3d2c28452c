"""A SIMULATED fleet of devices that a rollout reaches.

Links, offline hours, failures and customers are random numbers, with simpy. What is real is handed in: how often each
version was right on measured messages and, for some devices, a function that verifies and runs the package
itself. Its numbers show how a rollout behaves, not how a fleet of yours would. 10,000 devices take about a second.
"""

import math

import numpy
import pandas
import simpy

from slmops_lab.errors import CourseError

TICK = 30  # minutes between two looks of the controller
OLD, NEW, FAILED = 0, 1, 2  # FAILED runs the old version: what cannot be installed replaces nothing


class Fleet:
    """Simulated devices, all on the old version.

    right: {'old' and 'new': sequence of 0/1}, measured answers; a simulated answer is one of them.
    package_mb: what is downloaded. real: function(device) -> list of 0/1, or CourseError where the package is
    refused; it is called for the first `reals` devices of the first group instead of simulating them.
    tampered: whether somebody changed the package on its way (simulated devices notice it by its hash).
    Raises CourseError where that describes no fleet, such as a group of the plan without a device.
    """

    def __init__(self, size, plan, right, package_mb, seed=0, real=None, reals=0, tampered=False):
        edges = numpy.cumsum([0, *(round(group.share * size) for group in plan.groups[:-1])])
        for good, complaint in (
            (0 <= seed < 2**32, f"its seed must be a whole number from 0 to {2**32 - 1:,}, not {seed}"),
            ((numpy.diff([*edges, size]) > 0).all(), f"{size:,} devices leave a group of the plan without one"),
            (package_mb > 0, f"its package must be larger than {package_mb} MB"),
            (len(right["old"]) and len(right["new"]), "it needs measured answers of both versions"),
            (reals == 0 or real is not None, "its real devices need a function that runs the package"),
        ):
            if not good:
                raise CourseError(f"This is no fleet: {complaint}.")
        self.size, self.plan, self.package_mb, self.seed = size, plan, package_mb, seed
        self.real, self.tampered = real, tampered
        self.env = simpy.Environment()
        rng = self.rng = numpy.random.default_rng(seed)
        self.rate = {version: float(numpy.mean(right[version])) for version in ("old", "new")}
        order = numpy.split(rng.permutation(size), edges[1:])
        self.group = numpy.empty(size, int)
        for number, members in enumerate(order):
            self.group[members] = number
        self.reals = set(order[0][:reals].tolist())
        self.kbit = rng.lognormal(math.log(8_000), 1.0, size)  # links: median 8 Mbit/s, some very slow
        self.breaks = rng.beta(1, 12, size)  # how likely a download breaks
        self.offline = rng.beta(1, 6, size)  # how likely a device is off when it should ask
        self.memory_mb = rng.choice([512, 1_024, 2_048, 4_096], size, p=[0.01, 0.29, 0.4, 0.3])
        self.state = numpy.zeros(size, int)  # OLD, NEW, FAILED
        self.why = {}  # device -> why its update failed
        self.real_answers = []
        self.judged = {"new": [0, 0], "old": [0, 0]}
        self.history = []
        self._open, self._rolling_back = 0, False

    # what happens on a device -----------------------------------------------------------------------------

    def _asks(self, rng, device):
        """Minutes until a device is on and asks what there is for it."""
        wait = rng.uniform(0, 60)
        while rng.random() < self.offline[device]:
            wait += rng.exponential(8 * 60)
        return wait

    def _update(self, device):
        rng = numpy.random.default_rng([self.seed, device])
        yield self.env.timeout(self._asks(rng, device))
        for _ in range(3):
            left = self.package_mb
            while left > 0:
                minutes = left * 8_000 / self.kbit[device] / 60
                part = rng.random() if rng.random() < self.breaks[device] else 1.0
                yield self.env.timeout(minutes * part)
                left = left * (1 - part)  # it goes on where it broke
                if left > 0:
                    yield self.env.timeout(self._asks(rng, device))
            if self._rolling_back:
                return
            answers, refused = self._received(device)
            if not refused:
                self._install(device, rng, answers)
                return
            yield self.env.timeout(self._asks(rng, device))  # perhaps it was damaged on the way
        self.state[device], self.why[device] = FAILED, refused

    def _received(self, device):
        """(real answers, why the package is refused or None)."""
        if device in self.reals:
            try:
                return self.real(device), None
            except CourseError as error:
                return [], str(error)
        return [], "the hash is not the signed one" if self.tampered else None

    def _install(self, device, rng, answers):
        if self.memory_mb[device] < 600 or rng.random() < 0.003:
            self.state[device] = FAILED
            self.why[device] = "not enough memory" if self.memory_mb[device] < 600 else "the disk is full"
            return
        self.state[device] = NEW
        self.real_answers += answers
        self.judged["new"][0] += sum(answers)
        self.judged["new"][1] += len(answers)

    def _back(self, device):
        yield self.env.timeout(self._asks(numpy.random.default_rng([self.seed, device, 1]), device))
        self.state[device] = OLD  # the old package is still there: nothing is downloaded

    # what happens in the fleet ----------------------------------------------------------------------------

    def _reconcile(self, groups_open, roll_back):
        while self._open < groups_open:
            for device in numpy.flatnonzero(self.group == self._open):
                self.env.process(self._update(int(device)))
            self._open += 1
        if roll_back and not self._rolling_back:
            self._rolling_back = True
            for device in numpy.flatnonzero(self.state == NEW):
                self.env.process(self._back(int(device)))

    def _judge_answers(self):
        """Customers write, people correct some answers: six judged ones per device and day."""
        for version, running in (("new", self.state == NEW), ("old", self.state != NEW)):
            count = int(self.rng.poisson(running.sum() * 6 * TICK / (24 * 60)))
            self.judged[version][0] += int(self.rng.binomial(count, self.rate[version]))
            self.judged[version][1] += count

    def seen(self):
        """What a controller can know; see `Controller.decide`."""
        those = {"size": self.state >= 0, "new": self.state == NEW, "failed": self.state == FAILED}
        counts = {
            name: numpy.bincount(self.group[chosen], minlength=len(self.plan.groups)) for name, chosen in those.items()
        }
        groups = [dict(zip(those, map(int, row), strict=True)) for row in zip(*counts.values(), strict=True)]
        judged = {version: list(counts) for version, counts in self.judged.items()}
        return {"hour": self.env.now / 60, "groups": groups, "judged": judged}

    def run(self, controller, hours=14 * 24):
        """Let time pass until the rollout has ended everywhere, or for so many hours; returns the history.

        controller None: nobody decides, devices go on with what they were told. Returns a DataFrame, one
        row per tick, of devices on the new version, failed ones, and judged answers.
        """
        end = self.env.now + hours * 60
        while self.env.now < end:
            if controller is not None:
                self._reconcile(*controller.decide(self.seen()))
            self.env.run(until=self.env.now + TICK)
            self._judge_answers()
            new, failed = int((self.state == NEW).sum()), int((self.state == FAILED).sum())
            self.history.append((self.env.now / 60, new, failed, self.judged["new"][1]))
            if controller is not None and controller.state["status"] != "running" and self._settled(controller):
                break
        columns = ["hour", "new version", "update failed", "judged answers of the new version"]
        return pandas.DataFrame(self.history, columns=columns)

    def _settled(self, controller):
        if controller.state["status"] == "rolled back":
            return self._rolling_back and not (self.state == NEW).any()
        return True
