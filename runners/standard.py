"""The one-stage procedure: train by gradient, select an epoch, resume after any kill."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from common.code_files.run_codes import read_codes
from common.config.run_config import RunConfig
from common.registry import RUNNERS
from common.seeding import rng_state, set_rng_state
from common.storage import checkpoint
from dataset.loader import make_loader, set_epoch
from models.base import Batch, Progress, Terms
from runners.base import Runner, not_accepted
from runners.evaluation.selection import (
    RUN,
    Best,
    Selection,
    check_answered,
    improve,
    measure_epoch,
    own_epochs,
    selection_of,
)
from runners.inputs.loading import choose_device
from runners.tensorboard.run_writer import (
    EpochCodes,
    TensorBoardWriter,
    draw_results,
    open_writer,
)
from runners.training.history import (
    EpochRecord,
    Measurement,
    append_record,
    drop_records_after,
)
from runners.training.micro_batches import is_out_of_memory, step_in_parts
from runners.training.module import TrainingModule
from runners.training.optimization import Optimization
from utils.errors import UserError
from utils.fence import fenced
from utils.heartbeat import heartbeat
from utils.progress import progress_bar

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger("hashing")


@dataclasses.dataclass(frozen=True)
class StandardConfig:
    """Keys of ``runner`` with ``name: standard``."""

    epochs: int = 30  # passes over the training rows
    batch_size: int = 128  # over all processes
    accumulate: int = 1  # batches whose gradients are added before a step
    clip_norm: float = 0.0  # of the gradient of all parameters together; 0 = off
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of forward and backward
    drop_last: bool = False  # leave out an epoch's last, smaller batch
    checkpoint_every: int = 1  # epochs between checkpoints; the last epoch always has one
    tensorboard: bool = True  # write curves for it
    pictures: int = 4  # validation rows whose nearest rows TensorBoard shows; 0 = none
    device: str = "auto"  # auto: a GPU where there is one
    threads: int = 0  # CPU threads; 0 = PyTorch's choice


class NonFiniteLossError(UserError):
    """A loss term became NaN or infinite; the message names it."""


@dataclasses.dataclass
class _State:
    """What a checkpoint restores, beside tensors."""

    epoch: int = 0  # epochs finished
    best: Best = dataclasses.field(default_factory=dict)
    micro_batch: int | None = None  # rows in the model at a time, where memory did not suffice


@RUNNERS.register("standard", config=StandardConfig)
class StandardRunner(Runner):
    """Train a model with a loss over epochs, select on held-out rows, resume after a kill."""

    settings: StandardConfig

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        for name in ("epochs", "batch_size", "accumulate", "checkpoint_every"):
            if (value := getattr(self.settings, name)) < 1:
                raise not_accepted(name, value, "at least 1 is needed.")
        if (pictures := self.settings.pictures) < 0:
            wanted = "give a number of queries, or 0 for no pictures."
            raise not_accepted("pictures", pictures, wanted)
        self.accelerator = self._accelerator()
        self.state = _State()
        self.tensorboard_folder = self.folder.path / "tensorboard"

    def _accelerator(self) -> Any:
        """Return accelerate's view of devices, processes and precision."""
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs

        device = choose_device(self.config)
        if self.settings.precision == "fp16" and device.type == "cpu":
            raise UserError("runner.precision=fp16 needs a GPU; give bf16 or fp32 on a CPU.")
        # accelerate keeps one state per process; another run of a sweep may want another precision
        AcceleratorState._reset_state()
        return Accelerator(
            cpu=device.type == "cpu",
            mixed_precision={"fp32": "no"}.get(self.settings.precision, self.settings.precision),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )

    def train(self) -> Selection:
        """Run the remaining epochs, then load the selected state."""
        experiment = self.experiment
        assert experiment.loss is not None
        self._check_selection()
        self.optimization = Optimization.build(self.config.optim, experiment.model, experiment.loss)
        self._resume()
        module = TrainingModule(experiment.model, experiment.loss)
        self.module = self.accelerator.prepare(module)
        self.optimization.optimizers = [
            self.accelerator.prepare(optimizer) for optimizer in self.optimization.optimizers
        ]
        self._train_epochs()
        selection = self._selected()
        if self.is_main:
            with fenced(self._saved("previous")):
                shutil.rmtree(self._saved("previous"), ignore_errors=True)
            self.folder.drop_epoch_codes(set(selection.epochs.values()) - {selection.epoch})
        return selection

    def _check_selection(self) -> None:
        """Refuse a measure that cannot choose an epoch."""
        select = self.config.eval.select
        if select != "last":
            part = "train" if select == "val" else "database"
            views = (self.experiment.view(name) for name in (select, part))
            check_answered(self.config.eval, *(view.labels for view in views))

    def _train_epochs(self) -> None:
        settings, accelerator, state = self.settings, self.accelerator, self.state
        loader = make_loader(
            self.experiment.view("train", train=True), settings.batch_size, shuffle=True,
            seed=self.config.seed, workers=self.config.data.workers, drop_last=settings.drop_last,
            rank=accelerator.process_index, world=accelerator.num_processes,
        )  # fmt: skip
        steps = len(loader)
        if self.is_main:
            drop_records_after(self.folder.path, state.epoch)
        self.tensorboard_writer = TensorBoardWriter(
            self.open_writer(), self.experiment,
            epoch=state.epoch, epochs=settings.epochs, pictures=settings.pictures,
        )  # fmt: skip
        with progress_bar(self.config.run_name, settings.epochs) as advance:
            advance(state.epoch)
            for epoch in range(state.epoch, settings.epochs):
                start = time.perf_counter()
                set_epoch(loader, epoch)
                with self.train_clock.phase("step_s"):  # less what batches are waited for
                    loss, rates = self._train_epoch(loader, epoch, steps)
                state.epoch = self.experiment.eval_pass = epoch + 1
                seconds = time.perf_counter() - start
                with self.train_clock.phase("select_s"):
                    measured = self._evaluate_epoch()
                record = EpochRecord(state.epoch, loss, rates, seconds, measured)
                with self.train_clock.phase("board_s"):
                    self._log_epoch(record)
                    self.tensorboard_writer.write_epoch(record)
                advance(1, note=f"loss {loss['total']:.4f}")
                with self.train_clock.phase("write_s"):
                    if self.is_main:
                        append_record(self.folder.path, record)
                    self._checkpoint()
        self.tensorboard_writer.close()

    def _train_epoch(
        self, loader: Any, epoch: int, batches: int
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Do one epoch; return the means of the total and of every term, and the learning rates."""
        self.module.train()
        accumulate, epochs = self.settings.accumulate, self.settings.epochs
        steps = math.ceil(batches / accumulate)  # of the optimisers, in an epoch
        sums: dict[str, Tensor] = {}
        rates: dict[str, float] = {}
        for number, batch in enumerate(self.train_clock.waiting("data_s", loader)):
            heartbeat()
            progress = Progress(epoch, epoch * steps + number // accumulate, epochs, epochs * steps)
            rates = self.optimization.set_rates(progress)
            first = number - number % accumulate
            share = min(accumulate, batches - first)  # the last step may have fewer batches
            step_now = number == first + share - 1
            terms = self._step(batch.to(self.device), progress, share, step_now)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term
        means = {name: float(total) / batches for name, total in sums.items()}
        return {"total": sum(means.values()), **means}, rates

    def _step(self, batch: Batch, progress: Progress, share: int, step_now: bool) -> Terms:
        """Add one batch's gradient, as one of ``share``; step the optimisers if it is the last."""
        accelerator = self.accelerator
        with contextlib.nullcontext() if step_now else accelerator.no_sync(self.module):
            terms = self._gradients(batch, progress, share)
        if step_now:
            if self.settings.clip_norm > 0:
                accelerator.clip_grad_norm_(self.module.parameters(), self.settings.clip_norm)
            self.optimization.step()
        return Terms(**{name: term.detach() for name, term in terms.items()})

    def _gradients(self, batch: Batch, progress: Progress, share: int) -> Terms:
        """Add a batch's gradients; when memory runs out, do it again in parts half as large."""

        def backward(total: Tensor) -> None:
            self.accelerator.backward(total / share)

        while True:
            before = rng_state()
            try:
                if (rows := self.state.micro_batch) is not None:
                    return step_in_parts(
                        self.accelerator.unwrap_model(self.module), batch, progress, rows,
                        backward=backward, autocast=self.accelerator.autocast,
                        check=check_finite,
                    )  # fmt: skip
                terms = self.module(batch, progress)
                check_finite(terms, progress)
                backward(terms.total())
                return terms
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(self.state.micro_batch or len(batch), error)
            set_rng_state(before)

    def _halve(self, rows: int, error: Exception) -> None:
        """Halve the rows that are in the model at a time.

        Raises:
            UserError: that is not possible.
        """
        obstacle = ""
        if rows < 2:
            obstacle = "one row is too many for the memory"
        elif self.accelerator.num_processes > 1:
            obstacle = "with several processes the batch is not divided further"
        elif self.settings.accumulate > 1:
            obstacle = "with runner.accumulate > 1 the batch is not divided further"
        if obstacle:
            raise UserError(
                f"Out of memory with {rows} rows in the model, and {obstacle}; give a smaller "
                "runner.batch_size or a smaller encoder, or another runner.device."
            ) from error
        self.state.micro_batch = (rows + 1) // 2
        self.optimization.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning(
            "out of memory with %d rows in the model; from now on %d at a time, with the loss of "
            "the whole batch", rows, self.state.micro_batch,
        )  # fmt: skip

    def notes(self) -> dict[str, Any]:
        """Return the rows of a micro-batch, where memory did not suffice for a batch."""
        rows = self.state.micro_batch
        return {} if rows is None else {"micro_batch": rows}

    def _evaluate_epoch(self) -> Measurement | None:
        """Measure on what epochs are selected by, if this is the time; save the best state."""
        evaluation, state = self.config.eval, self.state
        last = state.epoch == self.settings.epochs
        if evaluation.select == "last" or (state.epoch % evaluation.every and not last):
            return None
        part = "train" if evaluation.select == "val" else "database"
        query, database = self.code_set(evaluation.select), self.code_set(part)
        directions = self.directions()
        measured, scores = measure_epoch(
            query, database, directions, evaluation, device=self.device
        )
        with self.train_clock.phase("board_s"):
            codes = EpochCodes(evaluation.select, part, tuple(directions), query, database)
            self.tensorboard_writer.draw_codes(state.epoch, codes)
        improved = improve(state.best, state.epoch, scores)
        if RUN in improved and self.is_main:
            with self.train_clock.phase("write_s"):
                checkpoint.save(self._saved("best"), self.modules(), state=self.made_with())
        if improved != [RUN] and improved:
            if evaluation.select == "val":
                query, database = self.code_set("query"), self.code_set("database")
            if self.is_main:
                with self.train_clock.phase("write_s"):
                    self.write_codes(self.folder.codes_of_epoch(state.epoch), query, database)
        return measured

    def _checkpoint(self) -> None:
        epoch, settings = self.state.epoch, self.settings
        if not self.is_main or (epoch % settings.checkpoint_every and epoch != settings.epochs):
            return
        checkpoint.keep_previous(self._saved("last"))
        checkpoint.save(
            self._saved("last"), self.modules(), self.optimization.optimizers,
            rng_state(), {**dataclasses.asdict(self.state), **self.made_with()},
        )  # fmt: skip
        kept = set(own_epochs(self.state.best).values())
        with contextlib.suppress(UserError):  # no previous one
            kept |= set(own_epochs(checkpoint.read_state(self._saved("previous"))["best"]).values())
        self.folder.drop_epoch_codes(kept)

    def _resume(self) -> None:
        """Load the last undamaged checkpoint, if there is one."""
        for name in ("last", "previous"):
            folder = self._saved(name)
            if not folder.is_dir():
                continue
            try:
                checkpoint.verify(folder)
                saved = checkpoint.read_state(folder)
                self._verify_best(saved)
            except UserError as error:
                log.warning("%s Training goes on from before it.", error)
                if self.is_main:
                    with fenced(folder):
                        shutil.rmtree(folder, ignore_errors=True)
                continue
            self._load(folder, saved)
            return

    def _verify_best(self, saved: dict[str, Any]) -> None:
        """Check what a checkpoint calls the best: the run's weights, and codes of other epochs.

        Raises:
            UserError: it is missing or damaged.
        """
        best = saved["best"]
        if RUN not in best:
            return
        checkpoint.verify(self._saved("best"))
        finished = saved["epoch"] == self.settings.epochs  # the run's own codes are dropped then
        for epoch in set(own_epochs(best).values()) - ({best[RUN][0]} if finished else set()):
            read_codes(self.folder.codes_of_epoch(epoch))

    def _saved(self, name: str) -> Path:
        return self.folder.checkpoints / name

    def _load(self, folder: Path, saved: dict[str, Any]) -> None:
        saved.pop("identity", None)  # compared before anything was computed
        if saved.pop("config", None) != self.config.hash:
            raise UserError(
                f"Checkpoint '{folder}' belongs to another configuration than run "
                f"'{self.config.run_name}'; choose another output, or remove the folder."
            )
        checkpoint.load_modules(folder, self.modules())
        checkpoint.load_optimizers(folder, self.optimization.optimizers)
        set_rng_state(checkpoint.read_rng(folder))
        self.state = _State(**saved)
        log.info("resumed after epoch %d of %d", self.state.epoch, self.settings.epochs)

    def _selected(self) -> Selection:
        if self.config.eval.select == "last":
            return Selection("last", self.state.epoch)
        self.accelerator.wait_for_everyone()
        checkpoint.load_modules(self._saved("best"), self.modules())
        return selection_of(self.config.eval, self.state.best)

    def modules(self) -> dict[str, torch.nn.Module]:
        """Return what checkpoints hold: file name → module."""
        assert self.experiment.loss is not None
        return {"model": self.experiment.model, "loss": self.experiment.loss}

    def after_results(self) -> None:
        """Show the final figures and codes in TensorBoard."""
        if self.settings.tensorboard:
            draw_results(self.tensorboard_folder, self.experiment, self.folder)

    def open_writer(self) -> SummaryWriter | None:
        """Return a writer into ``tensorboard_folder``, in the main process and if switched on."""
        if not self.is_main or not self.settings.tensorboard:
            return None
        return open_writer(self.tensorboard_folder)

    def _log_epoch(self, record: EpochRecord) -> None:
        epochs, measured = self.settings.epochs, record.measured
        by = "mAP" if measured is None or measured.by == "mAP@all" else measured.by
        selected = f"  {measured.on} {by} {measured.score:.4f}" if measured else ""
        line = f"epoch {record.epoch}/{epochs}  loss {record.loss['total']:.5f}{selected}"
        line += f"  {record.seconds:.1f} s"
        log.debug("%s", line)
        if record.epoch == epochs or record.epoch % max(epochs // 10, 1) == 0:
            log.info("%s", line)


def check_finite(terms: Terms, progress: Progress) -> None:
    """Stop at the first loss term that is NaN or infinite.

    Raises:
        NonFiniteLossError: naming the term, epoch and step.
    """
    values = torch.stack([term.detach().reshape(()) for term in terms.values()])
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return
    broken = [name for name, is_finite in zip(terms, finite.tolist(), strict=True) if not is_finite]
    raise NonFiniteLossError(
        f"Loss term '{broken[0]}' became {terms[broken[0]].item()} in epoch {progress.epoch + 1}, "
        f"step {progress.step}; lower the learning rate, or look at the rows of that batch."
    )
