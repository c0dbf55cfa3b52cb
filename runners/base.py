"""The steps of every run: build, fit, train (the subclass's part), encode, measure, write."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from abc import ABC, abstractmethod
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.code_files.run_codes import CodeSet, read_codes, write_codes
from common.config.run_config import RunConfig
from common.directions import sides, usual_directions
from common.distributed import rank_and_world
from common.seeding import make_deterministic, seed_everything
from common.storage import checkpoint
from common.storage.cache import once_s
from common.storage.identity import Identity
from common.storage.leases import Lease, LeaseLostError
from common.storage.run_folder import RunFolder, now, surroundings
from runners.evaluation.measure import encode
from runners.evaluation.query_ap import write_query_ap
from runners.evaluation.run_report import measure_words, report_run
from runners.evaluation.selection import Selection
from runners.evaluation.zero_shot import headline
from runners.experiment import Experiment
from runners.inputs.loading import choose_device
from runners.training.costs import Clock, PeakMemory
from utils.errors import UserError
from utils.fence import fenced
from utils.files import sweep_debris, write_json
from utils.heartbeat import watchdog
from utils.logs import logging_to

log = logging.getLogger("hashing")


class Runner(ABC):
    """Carries one run from its configuration to its folder. Subclasses define :meth:`train`."""

    needs_loss = True

    def __init__(self, config: RunConfig) -> None:
        """Take a checked configuration; nothing is built yet."""
        if self.needs_loss and config.loss is None:
            raise UserError(
                f"Method '{config.method}' has no loss, and runner '{config.runner.name}' trains "
                "with one; give loss.name, or runner=fit for methods without gradient."
            )
        self.config = config
        self.settings = config.runner.config
        threads = getattr(self.settings, "threads", 0)
        if not 0 <= threads <= 4096:
            raise not_accepted("threads", threads, "0 to 4096 is needed.")
        if threads > 0:
            torch.set_num_threads(threads)
        self.folder = RunFolder(Path(config.output) / config.run_name)
        self.experiment: Experiment
        self.accept_changed = False
        self.train_clock = Clock()
        self.peak: PeakMemory

    @abstractmethod
    def train(self) -> Selection:
        """Train ``self.experiment.model`` and leave it in the state whose codes are measured."""

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.experiment.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes results (rank 0)."""
        return rank_and_world()[0] == 0

    def run(self, lease: Lease | None = None, accept_changed: bool = False) -> RunFolder:
        """Do the run, unless it is done already; return its folder.

        Args:
            lease: on the folder, where the caller has it already.
            accept_changed: resume although encoder, data or generated inputs are others.

        Raises:
            UserError: what the user can correct. The folder says ``failed`` and why; it is removed
                when data, encoder, model and loss could not even be built.
        """
        self.accept_changed = accept_changed
        if self.folder.is_done:
            log.info("already done: %s", self.folder.path)
        elif not self.is_main:
            self._run()
        else:
            with self.folder.leased() if lease is None else nullcontext(lease) as folder_lease:
                if not self.folder.is_done:  # by another worker, a moment ago
                    self._run_in_folder(folder_lease)
        return self.folder

    def _run_in_folder(self, lease: Lease) -> None:
        fresh = not self.folder.path.exists()
        damage = self.folder.damage() if self.folder.says_done else None
        self.folder = RunFolder.create(self.config)
        for place in (self.folder.path, self.folder.checkpoints):
            sweep_debris(place)
        if damage is not None:
            log.warning("'%s' says done, but %s: it is done again", self.folder.path, damage)
        try:
            with logging_to(self.folder.path / "log.txt"), watchdog(lease.check_often):
                self._run_with_status(lease)
        except LeaseLostError:
            raise  # the folder is another worker's now
        except UserError:
            if fresh and not hasattr(self, "experiment"):  # refused before anything was done
                with fenced(self.folder.path):
                    shutil.rmtree(self.folder.path, ignore_errors=True)
            raise

    def _run_with_status(self, lease: Lease) -> None:
        start, once, before = time.perf_counter(), once_s(), self.folder.status()

        def ending() -> dict[str, Any]:
            seconds = before.get("seconds", 0.0) + time.perf_counter() - start
            made_s = before.get("once_s", 0.0) + once_s() - once
            return {"finished": now(), "seconds": round(seconds, 3), "once_s": round(made_s, 3)}

        attempts = before.get("attempts", 0) + 1
        self.folder.set_status("running", error=None, attempts=attempts, **surroundings())
        try:
            self._run()
            lease.check()
        except LeaseLostError:
            raise  # the folder is another worker's now
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            failures = before.get("failures", 0) + (state == "failed")
            with contextlib.suppress(UserError, OSError):  # a full disk takes no status either
                self.folder.set_status(state, error=reason, failures=failures, **ending())
            expected = isinstance(error, UserError)
            trace = None if expected or state == "interrupted" else error
            # whoever called prints it, in a sentence
            log.error("%s: %s", state, reason, exc_info=trace, extra={"file_only": True})
            raise
        self.folder.set_done(**ending())
        log.info("done in %.1f s", time.perf_counter() - start)

    def _run(self) -> None:
        log.info("run %s", self.config.run_name)
        make_deterministic()
        seed_everything(self.config.seed)
        self.peak = PeakMemory(choose_device(self.config))
        clock = Clock()
        with clock.phase("setup_s"):
            self.experiment = Experiment.build(self.config, meet=self._meet)
        log.info("%s", self.experiment.describe())
        clock.add("setup_s", -self.experiment.inputs_s)
        clock.add("inputs_s", self.experiment.inputs_s)
        with clock.phase("train_s"):
            with self.train_clock.phase("fit_s"):
                self.experiment.fit_model()
            selection = self.train()
        self._evaluate(selection, clock.seconds)

    def made_with(self) -> dict[str, Any]:
        """Return what a checkpoint says of the run: the hash of its settings, and its identity."""
        return {"config": self.config.hash, "identity": self.experiment.identity.as_json()}

    def _meet(self, identity: Identity) -> None:
        """Refuse to go on with something else than before; record what the run is made with.

        Raises:
            ChangedError: names what has changed.
        """
        if not self.is_main:
            return
        before = checkpoint.identity_before(self.folder.checkpoints)
        if before is None:
            self.folder.set_status("running", identity=identity.as_json(), accepted_changes=[])
            return
        made = f"Run '{self.folder.path}'"
        changes = identity.check(before, made, self.accept_changed)
        self.folder.set_status("running", identity=identity.as_json())
        self.folder.record_accepted(changes, "resume")

    def _evaluate(self, selection: Selection, timing: dict[str, float]) -> None:
        config, experiment = self.config, self.experiment
        experiment.eval_pass = selection.epoch or 0
        clock, split = Clock(), experiment.split
        with clock.phase("encode_s"):
            query, database = self.code_set("query"), self.code_set("database")

        def codes_of(epoch: int | None) -> tuple[CodeSet, CodeSet]:
            if epoch is None or epoch == selection.epoch:
                return query, database
            return read_codes(self.folder.codes_of_epoch(epoch))[:2]

        with clock.phase("time_s"):
            found = report_run(
                codes_of, selection, self.directions(), config.eval,
                seen_classes=_seen_classes(experiment),
                trained_rows=np.concatenate([split.train, split.val]), device=self.device,
            )  # fmt: skip
        if not self.is_main:
            return
        with clock.phase("write_s"):
            split.save(self.folder.path / "split.npz")
            self.write_codes(self.folder.codes_file, query, database)
            write_query_ap(self.folder.path, found.per_query)
        metrics = {
            "run": {k: config.resolved[k] for k in ("method", "bits", "seed")}
            | {"dataset": config.dataset_name, "backbone": experiment.backbone_name},
            "protocol": self._protocol(selection),
            "split_hash": split.hash,
            "directions": found.directions,
            **({"zero_shot": found.zero_shot} if found.zero_shot else {}),
            "timing": timing
            | self.timing_notes()
            | clock.seconds
            | {"of_train": self.train_clock.seconds},
            "memory": self.peak.read(),
        }
        write_json(self.folder.metrics_file, metrics)
        for direction, report in found.directions.items():
            at, value = next(iter(report["map"].items()))
            log.info("%s mAP@%s %.4f", direction, at, value["expected"])
        if found.zero_shot:
            log.info("%s", headline(found.zero_shot))
        self.after_results()

    def write_codes(self, file: Path, query: CodeSet, database: CodeSet) -> None:
        """Write codes with what they were made with."""
        write_codes(file, query, database, self.experiment.split.hash, self.experiment.identity)

    def _protocol(self, selection: Selection) -> dict[str, Any]:
        split, measures = self.experiment.split, measure_words(self.config.eval)
        auxiliary = self.experiment.auxiliary_sources
        accepted = self.folder.status().get("accepted_changes")
        return {
            "metric": "mAP over all orders of equal distances, in expectation",
            "relevance": "share at least one label",
            "queries_without_relevant": self.config.eval.no_relevant,
            **({"measures": measures} if measures else {}),
            "split": split.rule,
            "rows": {p: len(getattr(split, p)) for p in ("train", "val", "query", "database")},
            "classes": self.experiment.problem.n_classes,
            "selected": selection.as_json(),
            "captions": self._captions(),
            "skipped_images": len(self.experiment.inputs.unreadable),
            **({"other_inputs": auxiliary} if auxiliary else {}),
            **self.experiment.model.protocol_notes(auxiliary),
            **({"accepted_changes": accepted} if accepted else {}),
            **self.notes(),
        }

    def _captions(self) -> str | None:
        """Return which caption of a row was encoded: ``first``, ``random``; None without texts."""
        dataset = self.experiment.dataset
        if "text" not in dataset.modalities:
            return None
        return self.config.data.eval_captions if dataset.several_captions else "first"

    def notes(self) -> dict[str, Any]:
        """Return entries of ``protocol`` in ``metrics.json`` that only this procedure has."""
        return {}

    def timing_notes(self) -> dict[str, float]:
        """Return entries of ``timing`` in ``metrics.json`` that only this procedure has."""
        return {}

    def after_results(self) -> None:  # noqa: B027  most procedures have nothing to do here
        """Do what needs the written results; the main process calls it."""

    def directions(self) -> list[str]:
        """Return the directions to measure.

        Raises:
            UserError: one needs a modality that the model does not encode.
        """
        modalities = self.experiment.model.modalities
        directions = self.config.eval.directions or usual_directions(modalities, modalities)
        for direction in directions:
            if not set(sides(direction)) <= set(modalities):
                raise UserError(
                    f"eval.directions has '{direction}', but model '{self.config.model.name}' "
                    f"encodes {' and '.join(modalities)} only on dataset "
                    f"'{self.config.dataset_name}'."
                )
        return list(directions)

    def code_set(self, part: str) -> CodeSet:
        """Return the codes of all rows of a part of the split, for the modalities measured."""
        view = self.experiment.view(part)
        modalities = sorted({m for d in self.directions() for m in sides(d)})
        batches = self.experiment.eval_batches(view)
        codes = encode(self.experiment.model, batches, self.device, modalities)
        return CodeSet(codes, view.labels.to(torch.uint8).numpy(), view.rows)


def _seen_classes(experiment: Experiment) -> list[int]:
    """Return the seen classes of the dataset, and those that training rows carry besides.

    Generated rows do not count: a class without other training rows is an unseen one.
    """
    trained = experiment.split.train
    if experiment.generated is not None:
        trained = np.setdiff1d(trained, experiment.generated.rows)
    carried = experiment.dataset.labels[trained].any(0).nonzero()[0].tolist()
    return sorted({*experiment.problem.seen_classes, *carried})


def run_config(
    config: RunConfig, lease: Lease | None = None, accept_changed: bool = False
) -> RunFolder:
    """Run one configuration with the runner that it names; the others as in :meth:`Runner.run`."""
    return config.runner.entry.target(config).run(lease, accept_changed)


def not_accepted(key: str, value: object, needed: str) -> UserError:
    """Return the error for a value of ``runner.<key>``; ``needed`` says what would do."""
    return UserError(f"runner.{key}={value} is not accepted; {needed}")
