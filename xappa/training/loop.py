"""The loop that both stages share.

Everything that a step does follows from its number: its batch and noise (keyed by step and
sample), its learning rate, and whether it is reported, validated or saved. What a checkpoint holds
is therefore the weights, their moving average and the optimiser's moments.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from xappa.errors import TrainingError
from xappa.progress import progress_bar
from xappa.training.checkpoint import load_checkpoint, save_checkpoint
from xappa.training.distributed import Processes
from xappa.training.loader import Batch, Prefetched
from xappa.training.log import Log
from xappa.training.optimisers import averaged, optimiser_of, rate
from xappa.training.settings import TrainingSettings

__all__ = ["Run", "Stage", "fit"]

Settings = TypeVar("Settings", bound=TrainingSettings)


@dataclass(frozen=True, eq=False)
class Stage:
    """One of the trainings that a prior needs.

    Parameters
    ----------
    name
        Of the checkpoint, the log and the progress bar.
    steps
        Gradient steps.
    network
        What is trained.
    objective
        Holds the network, and maps a batch to its loss, a mean over samples.
    batch
        Maps a step and the numbers of samples to tensors on the CPU, the samples first. Samples do
        not depend on which others are asked for.
    validate
        Maps a network of averaged weights to what is reported of it.
    """

    name: str
    steps: int
    network: nn.Module
    objective: nn.Module
    batch: Callable[[int, range], Batch]
    validate: Callable[[Any], Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class Run(Generic[Settings]):
    """What the stages of a training share.

    Parameters
    ----------
    config
        The settings.
    processes
        The processes, seen from this one.
    seed
        Of batches and noise.
    identity
        What a training that goes on must share, besides the settings.
    folder
        Where checkpoints go; None for none.
    log
        Where reports go.
    progress
        Whether progress bars are shown.
    warm
        Whether networks begin with the weights of a model: these count in the averages, and are
        validated before the first step.
    """

    config: Settings
    processes: Processes
    seed: int
    identity: Mapping[str, Any]
    folder: Path | None
    log: Log
    progress: bool | None = None
    warm: bool = False

    def checkpoint(self, stage: str) -> Path | None:
        """Return where the checkpoint of a stage is."""
        return None if self.folder is None else self.folder / f"{stage}.pt"

    def identity_of(self, stage: str) -> dict[str, Any]:
        """Return what a training that goes on with a stage must share."""
        settings = self.config.defining_of(stage)
        return {"stage": stage, "seed": self.seed, **self.identity, **settings}

    def restored(self, stage: str) -> dict[str, Any] | None:
        """Return the checkpoint of a stage, if there is one."""
        path = self.checkpoint(stage)
        return None if path is None else load_checkpoint(path, self.identity_of(stage))

    def begun(self, stage: str) -> bool:
        """Return whether a stage has a checkpoint, in all processes alike."""
        path = self.checkpoint(stage)
        found = path is not None and path.is_file()
        return self.processes.from_first(found if self.processes.first else None)


def fit(stage: Stage, run: Run[Any]) -> Any:
    """Train a stage, from its checkpoint if there is one.

    Returns
    -------
    torch.nn.Module
        The network with averaged weights; without steps, with those that it came with.

    Raises
    ------
    TrainingError
        If the loss is not finite, or the batch cannot be shared by the processes.
    CheckpointError
        If a checkpoint cannot be written or read.
    ArgumentError
        If the checkpoint belongs to another training.
    """
    trainer = _Trainer(stage, run)
    trainer.restore()
    if run.warm and not trainer.done:
        trainer.validate()
    if trainer.done < stage.steps:
        trainer.train()
    return trainer.average.module.eval()


class _Trainer:
    """A stage while it is trained."""

    def __init__(self, stage: Stage, run: Run[Any]) -> None:
        self.stage, self.run, self.config = stage, run, run.config
        self.network = stage.network.train()
        self.optimiser = optimiser_of(self.network, self.config)
        self.average = averaged(self.network, stage.steps, self.config, warm=run.warm)
        self.samples = run.processes.share(self.config.batch, self.config.accumulate)
        self.done = 0
        self.losses: list[Tensor] = []
        self.norm: Tensor | None = None

    def restore(self) -> None:
        """Take what the checkpoint holds."""
        found = self.run.restored(self.stage.name)
        if found is None:
            return
        self.done = int(found["step"])
        self.average.load_state_dict(found["average"])
        if self.done < self.stage.steps:
            self.network.load_state_dict(found["network"])
            self.optimiser.load_state_dict(found["optimiser"])

    def save(self) -> None:
        """Write the checkpoint; the last one holds what is kept, and nothing more."""
        path = self.run.checkpoint(self.stage.name)
        if path is None or not self.run.processes.first:
            return
        content = {"step": self.done, "average": self.average.state_dict()}
        if self.done < self.stage.steps:
            content["network"] = self.network.state_dict()
            content["optimiser"] = self.optimiser.state_dict()
        save_checkpoint(path, self.run.identity_of(self.stage.name), content)

    def train(self) -> None:
        """Do all steps that are left."""
        self.objective = self.run.processes.wrap(self.stage.objective)
        called: Any = torch.compile(self.objective) if self.config.compile else self.objective
        steps = range(self.done, self.stage.steps)
        first = self.run.processes.first
        bar = progress_bar(self.run.progress if first else False, self.stage.name)
        rounds: Any = steps if bar is None else bar(steps)
        with Prefetched(self._batch, steps, self.config.prefetch) as loader:
            meter = _Meter(loader, self.config.batch, self.run.processes.device)
            for _, (step, batch) in zip(rounds, loader, strict=False):
                self._step(called, step, batch)
                self.done = step + 1
                if self._due(self.config.log_every) or self._due(self.config.checkpoint_every):
                    values = self._report(meter)
                    if bar is not None:
                        rounds.set_postfix(loss=f"{values['loss']:.3g}")
                if self._due(self.config.validate_every):
                    self.validate()
                if self._due(self.config.checkpoint_every):
                    self.save()

    def _due(self, every: int) -> bool:
        return self.done == self.stage.steps or (every > 0 and self.done % every == 0)

    def _batch(self, step: int) -> Batch:
        batch = self.stage.batch(step, self.samples)
        cuda = self.run.processes.device.type == "cuda"
        return tuple(part.pin_memory() for part in batch) if cuda else batch

    def _step(self, objective: Any, step: int, batch: Batch) -> None:
        config, device = self.config, self.run.processes.device
        for group in self.optimiser.param_groups:
            group["lr"] = rate(step, self.stage.steps, config)
        parts = list(zip(*(part.chunk(config.accumulate) for part in batch), strict=True))
        total = torch.zeros((), device=device)
        for number, part in enumerate(parts, 1):
            here = [tensor.to(device, non_blocking=True) for tensor in part]
            with self._apart(number < len(parts)):
                with torch.autocast(
                    device.type, torch.bfloat16, enabled=config.precision == "bf16"
                ):
                    loss = objective(*here) / len(parts)
                loss.backward()
            total += loss.detach()
        self.norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.clip or torch.inf)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.average.update_parameters(self.network)
        self.losses.append(total)

    def _apart(self, yes: bool) -> AbstractContextManager[None]:
        """Let processes average gradients after the last part of a batch alone."""
        if yes and self.run.processes.size > 1:
            apart: AbstractContextManager[None] = self.objective.no_sync()  # type: ignore[operator]
            return apart
        return nullcontext()

    def _report(self, meter: _Meter) -> dict[str, float]:
        loss = float(self.run.processes.mean(torch.stack(self.losses).mean()))
        if not torch.isfinite(torch.tensor(loss)):
            saved = self.run.folder is not None
            raise TrainingError(
                "the training diverged: its loss is not finite",
                where=f"{self.stage.name}, step {self.done}",
                got=f"{loss}",
                remedy="lower the learning rate, lengthen the warm-up, or clip more"
                + ("; the last checkpoint is from before" if saved else ""),
            )
        values = {
            "loss": loss,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "gradient_norm": float(self.norm if self.norm is not None else 0.0),
            **meter.read(len(self.losses)),
        }
        self.losses.clear()
        if self.run.processes.first:
            self.run.log.write(self.stage.name, self.done, values)
        return values

    @torch.no_grad()
    def validate(self) -> None:
        """Report what the averaged weights are worth, in the first process."""
        if self.run.processes.first:
            values = self.stage.validate(self.average.module.eval())
            self.run.log.write(self.stage.name, self.done, values)


class _Meter:
    """Samples a second, share of the time that was spent waiting for them, and memory."""

    def __init__(self, loader: Prefetched, batch: int, device: torch.device) -> None:
        self.loader, self.batch, self.device = loader, batch, device
        self.waited, self.time = 0.0, time.perf_counter()

    def read(self, steps: int) -> dict[str, float]:
        """Return what holds for the steps since the last call."""
        now, waited = time.perf_counter(), self.loader.waited
        took = max(now - self.time, 1e-9)
        values = {
            "samples_per_second": steps * self.batch / took,
            "waiting": (waited - self.waited) / took,
            "memory_gib": _memory(self.device) / 2**30,
        }
        self.time, self.waited = now, waited
        return values


def _memory(device: torch.device) -> float:
    """Return the most bytes that were held on the device, or by the process."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # not every system tells
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
