"""A study from its question to its table: every arm is timed, trained and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from tf_dpce.ablations.arms import Arm, Question, trained_stages, with_epochs
from tf_dpce.ablations.size import parameters, text_parameters
from tf_dpce.ablations.times import decide_epochs, work_of
from tf_dpce.data.manifest import Manifest
from tf_dpce.errors import UserError
from tf_dpce.evaluation.protocols import evaluate_split, split_named
from tf_dpce.files import read_json, sole_writer, write_json
from tf_dpce.machine import code_version, machine_facts
from tf_dpce.training.features import Bar, silent_bar
from tf_dpce.training.history import HISTORY_FILE, read_history
from tf_dpce.training.run_folder import CONFIG_FILE, load_run, run_config
from tf_dpce.training.strategy import describe, make_strategy
from tf_dpce.training.train import Say, seconds_per_step, train

STUDY_FILE = "study.json"
SPLIT = "val"


@dataclass(frozen=True)
class Study:
    """A study on given data.

    Attributes:
        question: what is asked.
        data: folder of prepared data.
        others: folders of further prepared data, for the study `transfer` alone.
        out: folder to make, or to go on with.
        minutes: of training that each arm gets.
        command: that asked for it, kept beside the results.
    """

    question: Question
    data: Path
    others: tuple[Path, ...]
    out: Path
    minutes: float
    command: str

    def run(
        self,
        resume: bool = False,
        say: Say = lambda line: None,
        progress: Bar = silent_bar,
        verbose: int = 0,
    ) -> dict[str, Any]:
        """Runs every arm that is not finished and returns what `study.json` then holds.

        Args:
            resume: whether to go on with what `out` holds.
            say: called with a line now and then.
            progress: makes the bar of images while features are cached.
            verbose: Keras's.

        Raises:
            UserError: whatever the user can mend.
        """
        plan = self._plan()
        results = self._results(resume, [arm for arm, _, _ in plan])
        self.out.mkdir(parents=True, exist_ok=True)
        with sole_writer(self.out):
            # All are timed before any is trained, while the machine is as it is, and the epochs are
            # kept: a study that is broken off goes on with them.
            untimed = [(arm, data) for arm, data, _ in plan if arm.name not in results["arms"]]
            for number, (arm, data) in enumerate(untimed, 1):
                say(f"timing arm {number} of {len(untimed)}: let nothing else run")
                results["arms"][arm.name] = self._begin(arm, data, progress)
                write_json(self.out / STUDY_FILE, results)
            if not _decided(results["arms"]):
                decide_epochs(results["arms"], self.minutes)
                write_json(self.out / STUDY_FILE, results)
                _say_epochs(results["arms"], say)
            for arm, data, targets in plan:
                entry = results["arms"][arm.name]
                if "metrics" in entry:
                    say(f"{arm.name}: finished before")
                    continue
                self._train(arm, data, entry, say, progress, verbose)
                entry |= self._scores(arm, entry["timing"], targets)
                write_json(self.out / STUDY_FILE, results)
        return results

    def _plan(self) -> list[tuple[Arm, Path, tuple[Path, ...]]]:
        """Returns each arm with the data that it is trained on, and those that it is scored on."""
        arms, study = self.question.arms(), self.question.study
        self.question.values()
        if (study == "transfer") != bool(self.others):
            raise UserError(
                f"the study {study} takes no --other: leave it out"
                if self.others
                else "the study transfer needs --other DIR, prepared data to score on as well"
            )
        sources = (self.data, *self.others)
        for source in sources:
            split_named(source, SPLIT)
        if study != "transfer":
            return [(arm, self.data, sources) for arm in arms]
        names = [source.resolve().name for source in sources]
        if len(set(names)) < len(names):
            raise UserError(
                f"--data and --other name folders that are called the same: {', '.join(names)}; "
                "the arms take their names from them"
            )
        return [
            (replace(arms[0], name=name), source, sources)
            for name, source in zip(names, sources, strict=True)
        ]

    def _results(self, resume: bool, arms: Sequence[Arm]) -> dict[str, Any]:
        """Returns what a new `study.json` holds, or that of the study to go on with."""
        sources = (self.data, *self.others)
        asked = {
            **{key: value for key, value in asdict(self.question).items()},
            "minutes": self.minutes,
            "data": {str(s): Manifest.load(s).split_digest for s in sources},
        }
        path = self.out / STUDY_FILE
        if not resume:
            if self.out.exists() and any(self.out.iterdir()):
                raise UserError(f"{self.out} is not empty: go on with --resume, or give another")
            return {**asked, "command": self.command, "arms": {}}
        saved = read_json(path)
        differing = [key for key, value in asked.items() if saved.get(key) != value]
        differing += _changed_arms(saved, arms)
        if differing:
            raise UserError(
                f"{path} differs in {', '.join(differing)}: resume with the same options, or "
                "choose another --out"
            )
        return saved

    def _begin(self, arm: Arm, data: Path, progress: Bar) -> dict[str, Any]:
        """Times the stages of an arm; returns its entry in `study.json`, still without epochs."""
        config = self.question.config(arm)
        images = Manifest.load(data).splits["train"].images
        timing = [
            {
                "stage": number,
                "work": work_of(config, number, data),
                "measured": seconds,
                "steps_per_epoch": images // config.stage(number).batch_size,
            }
            for number, seconds in seconds_per_step(config, data, progress).items()
        ]
        return {
            "overrides": arm.overrides,
            "data": str(data),
            "seed": config.seed,
            "timing": timing,
            "command": self.command,
            **_circumstances(),
        }

    def _train(
        self,
        arm: Arm,
        data: Path,
        entry: Mapping[str, Any],
        say: Say,
        progress: Bar,
        verbose: int,
    ) -> None:
        run = self.out / arm.name
        begun = (run / CONFIG_FILE).is_file()
        if begun:
            config = run_config(run)
        else:
            epochs = {part["stage"]: part["epochs"] for part in entry["timing"]}
            config = with_epochs(self.question.config(arm), epochs)
        # Names of layers and seeds do not depend on the arms before.
        keras.utils.clear_session()
        train(
            config,
            data,
            run,
            trained_stages(config),
            resume=begun,
            say=lambda line: say(f"{arm.name}: {line}"),
            progress=progress,
            verbose=verbose,
        )

    def _scores(
        self, arm: Arm, timing: Sequence[Mapping[str, Any]], targets: tuple[Path, ...]
    ) -> dict[str, Any]:
        """Returns sizes, minutes and scores of a trained arm.

        It is scored with its last weights. The best ones of all epochs would be chosen by the very
        images that score, and of two stages they might be the first's.
        """
        run = load_run(self.out / arm.name, "last")
        known = run.model, run.tokenizer, run.config.image
        metrics = {t.resolve().name: evaluate_split(*known, t, SPLIT) for t in targets}
        return {
            "epochs": [run.config.stage(number).epochs for number in trained_stages(run.config)],
            "minutes": curve(self.out / arm.name, timing)[-1][0],
            "text_parameters": text_parameters(run.model.text_tower),
            "parameters": parameters(run.model),
            "metrics": metrics,
        }


def _changed_arms(saved: Mapping[str, Any], arms: Sequence[Arm]) -> list[str]:
    """Returns the arms of a `study.json` that are other ones in this version."""
    known = {arm.name: arm.overrides for arm in arms}
    entries = saved.get("arms", {}).items()
    return [f"arm {name}" for name, e in entries if e["overrides"] != known.get(name)]


def curve(run: Path, timing: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Returns (minutes of training, rsum) of each validation of an arm.

    The minutes are those that its steps were measured to take before any arm was trained, so that
    what else the machine does meanwhile bends no curve.

    Args:
        run: folder of the arm.
        timing: of its stages, as in `study.json`.
    """
    epochs = {part["stage"]: part["seconds_per_step"] * part["steps_per_epoch"] for part in timing}
    seconds, points = 0.0, []
    for row in read_history(run / HISTORY_FILE, before=(3, 0)):
        seconds += epochs[int(row["stage"])]
        if row["val_rsum"]:
            points.append((seconds / 60, float(row["val_rsum"])))
    return points


def _decided(arms: Mapping[str, Mapping[str, Any]]) -> bool:
    return all("epochs" in part for entry in arms.values() for part in entry["timing"])


def _say_epochs(arms: Mapping[str, Mapping[str, Any]], say: Say) -> None:
    for name, entry in arms.items():
        for part in entry["timing"]:
            seconds = part["seconds_per_step"] * part["steps_per_epoch"]
            say(f"{name}, stage {part['stage']}: {seconds:.1f} s an epoch, {part['epochs']} epochs")


def _circumstances() -> dict[str, Any]:
    return {
        "machine": machine_facts(),
        "devices": describe(make_strategy()),
        "commit": code_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
