"""Many trials of a function on a cluster: Ray Tune runs them, Optuna proposes their settings.

The function is the caller's own, plain and without Ray: trial(settings) -> number. Trials run side by side, so a
proposal knows of those trials only that had ended by then: with the same seed and one trial at a time a sweep repeats
itself, with several it need not. Costs the start of Ray, and a Python with torch for each trial, some seconds.
https://docs.ray.io/en/latest/tune/index.html, Akiba et al. 2019, https://arxiv.org/abs/1907.10902
"""

import json
import math
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from slmops_lab.errors import CourseError
from slmops_lab.files import write_json
from slmops_lab.operations.cluster import driver

CRASHES = 3  # of a worker, that one trial survives


def sweep(trial, space, trials, on="ray", cores=1, at_once=None, seed=0, mode="min", store=None):
    """Try settings of a space; returns a pandas table, a row for each trial in the order in which they ended.

    space: {name: Optuna distribution}, such as FloatDistribution(1e-4, 1e-2, log=True). cores: of each trial, whose
    threads are as many. at_once: trials side by side, None for as many as there is room for. Every trial begins with
    the same seed. mode: 'min' or 'max', what is looked for. store: folder for trials that have ended; with one, a sweep
    that was killed goes on. Columns: the settings, `value` (not a number where the function failed), `problem`,
    `seconds`. Raises CourseError where mode, space or the number of trials make no sense, where all trials fail, and as
    `driver.run` does.
    """
    if mode not in ("min", "max") or not space or trials < 1:
        raise CourseError("A sweep needs at least one setting to vary, one trial, and 'min' or 'max' to look for.")
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(store or scratch)
        done = _read(kept)

        def given():
            fixed = {"trial": trial, "space": space, "cores": cores, "at_once": at_once, "mode": mode, "fixed": seed}
            return fixed | {"trials": trials - len(done), "done": list(done), "seed": seed + len(done)}

        def said():
            return f"{len(done)} of {trials} trials are kept in {kept}." if store else ""

        with tqdm(total=trials, initial=min(trials, len(done)), desc="trials on a cluster", leave=False) as bar:
            for told in driver.run_again(on, run_trials, given, said) if len(done) < trials else ():
                write_json(kept / f"{len(done):05d}.json", told)
                done.append(told)
                bar.update()
    return _table(done[:trials], space)


def _read(folder):
    try:
        return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("[0-9]*.json"))]
    except (OSError, ValueError):
        raise CourseError(f"The trials in {folder} cannot be read: remove it, or name another store.") from None


def _table(done, space):
    import pandas

    if all(one["value"] is None for one in done):
        raise CourseError(f"All {len(done)} trials failed, the first with: {done[0]['problem']}")
    if strange := [name for one in done for name in one["settings"] if name not in space]:
        raise CourseError(f"The store holds trials of another space: '{strange[0]}' is not in this one.")
    rows = [one["settings"] | {key: one[key] for key in ("value", "problem", "seconds")} for one in done]
    return pandas.DataFrame(rows).astype({"value": float})


def run_trials(tell, trial, space, trials, done, cores, at_once, seed, mode, fixed):
    """The work of the driver's process: tells a dict of settings, value, problem and seconds for each trial."""
    import optuna
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    driver.leave_with_a_machine(tell)

    class Heard(tune.Callback):
        def on_trial_complete(self, iteration, trials, trial, **info):
            driver.tellers[0]({name: trial.last_result[name] for name in ("settings", "value", "problem", "seconds")})

        def on_trial_error(self, iteration, trials, trial, **info):
            problem = f"its worker died {CRASHES + 1} times"
            driver.tellers[0]({"settings": trial.config, "value": None, "problem": problem, "seconds": 0.0})

    known = [one for one in done if one["value"] is not None]
    how = {
        "points_to_evaluate": [one["settings"] for one in known],
        "evaluated_rewards": [one["value"] for one in known],
    }
    search = OptunaSearch(space, metric="judged", mode=mode, seed=seed, **(how if known else {}))
    side = min(driver.room(cores, at_once), trials)
    config = tune.TuneConfig(search_alg=search, num_samples=trials, max_concurrent_trials=side)
    with tempfile.TemporaryDirectory() as scratch:
        run = tune.RunConfig(
            storage_path=scratch,
            verbose=0,
            callbacks=[Heard()],
            failure_config=tune.FailureConfig(max_failures=CRASHES),
        )
        one = tune.with_resources(_one(trial, cores, fixed, mode), {"cpu": cores})
        tune.Tuner(one, tune_config=config, run_config=run).fit()


def _one(trial, cores, seed, mode):
    """The function that Tune runs: one trial with its threads and its seed, whose failure is a result as well."""

    def run(given):
        import os

        os.environ["OMP_NUM_THREADS"] = str(cores)
        from slmops_lab import settings

        settings.set_seed(seed)  # and torch's threads
        begun, value, problem = time.perf_counter(), None, ""
        try:
            value = float(trial(dict(given)))
            problem = "" if math.isfinite(value) else f"its value is {value}"
        except Exception as error:
            problem = f"{type(error).__name__}: {str(error).strip() or 'no reason given'}".splitlines()[0][:300]
        value = None if problem else value
        worst = math.inf if mode == "min" else -math.inf
        told = {"settings": dict(given), "value": value, "problem": problem, "seconds": time.perf_counter() - begun}
        return told | {"judged": worst if problem else value}

    return run
