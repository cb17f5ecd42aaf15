r"""Training of a downscaling model, from a coarse and a fine Dataset of any size.

1. Regressions of the mean: one for each fold, and one on all times (`xappa.training.residuals`).
2. What the regressions of the folds leave, and its standard deviation.
3. The diffusion model of these residuals.
4. Calibration on the data that were set aside (`xappa.models.corrdiff.calibration`).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xappa.bridge import StateSpec, VariableSpec, describe
from xappa.cf import from_seconds
from xappa.diffusion.noise import seed_of
from xappa.errors import DataError, GuessWarning, warn
from xappa.models.catalogue import remember
from xappa.models.corrdiff.calibration import calibrated_on
from xappa.models.corrdiff.conditions import LABELS, Cutting
from xappa.models.corrdiff.model import CorrDiffModel
from xappa.models.corrdiff.pairs import Pairs, pairs_of
from xappa.models.corrdiff.scaling import Scaling, default_transform
from xappa.models.corrdiff.target import Target, statics_of
from xappa.nn.unet import UNet, UNetConfig
from xappa.training.data import allowed
from xappa.training.distributed import processes
from xappa.training.downscaling import DownscalingTraining
from xappa.training.job import settings_of
from xappa.training.log import Log
from xappa.training.loop import Run, fit
from xappa.training.moments import coarse_moments, fine_moments
from xappa.training.residuals import Samples, diffusion_stage, fold_of, mean_stage, told_means
from xappa.training.settings import unknown_key

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["train_downscaler"]

_YEAR = 360 * 86400.0
#: States whose means are computed together.
_BLOCK = 64


def train_downscaler(
    coarse: xr.Dataset,
    fine: xr.Dataset,
    config: DownscalingTraining | str | Path | None = None,
    *,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    statics: Sequence[str] | None = None,
    seed: int | None = 0,
    name: str = "corrdiff",
    folder: str | Path | None = None,
    resume: bool = True,
    validation: tuple[xr.Dataset, xr.Dataset] | None = None,
    progress: bool | None = None,
) -> CorrDiffModel:
    """Train a downscaling model on coarse and fine states of the same times.

    Parameters
    ----------
    coarse
        Coarse states on a rectilinear grid that covers the fine one. Dask-backed data may exceed
        the memory.
    fine
        Fine states, on a rectilinear or a curvilinear grid; of the times of both, those in common
        count. Variables that the coarse states lack are allowed.
    config
        Sizes and steps: a preset (``"tiny"``, ``"mini"``, ``"paper"``), the path of a TOML file (of
        which the preset and the table ``[training]`` count), or a `DownscalingTraining`; by default
        ``"tiny"``, for minutes on two cores.
    inputs, outputs
        Names of the coarse and of the fine variables; all gridded ones that vary by default.
    statics
        Names of static fields of ``fine``, such as orography and the share of land; all by default.
    seed
        Of the first weights, the batches and the noise; None draws one, which is recorded.
    name
        The model's name.
    folder
        Where checkpoints and the log go; None writes nothing.
    resume
        Whether a training that the folder holds goes on; else it is replaced.
    validation
        Coarse and fine states to judge and to calibrate by; by default the end of the data, a share
        of ``config.held_out``.
    progress
        Whether progress bars are shown; None follows ``xappa.set_options(progress=...)``.

    Returns
    -------
    CorrDiffModel
        A bundle: it can be saved, opened, printed, and passed to ``ds.appa.downscale``.

    Raises
    ------
    ArgumentError
        If ``config`` or ``seed`` is not usable, patches do not fit the fine grid, or the folder
        holds another training.
    GridMismatchError
        If the coarse grid does not cover the fine one, or statics lie on another grid.
    VariableMismatchError
        If variables or static fields are missing.
    TimeStepError
        If the calendars differ.
    DataError
        If there are no times in common, values are missing, or do not vary.
    CheckpointError, TrainingError
        See `xappa.train`.

    References
    ----------
    Mardani et al. (2025), arXiv:2309.15214.
    """
    settings = settings_of(config, DownscalingTraining)
    place = None if folder is None else Path(folder)
    seed = seed_of(seed)
    with processes() as together:
        seed = together.from_first(seed)
        budget = allowed(settings.memory, together.size)
        data = _Data.read(coarse, fine, inputs, outputs, statics, validation, settings, budget)
        stages = [*(f"mean-{k}" for k in range(settings.folds)), "mean", "diffusion"]
        if place is not None and not resume and together.first:
            for stage in stages:
                (place / f"{stage}.pt").unlink(missing_ok=True)
        together.wait()
        log = Log(place if together.first else None)
        run = Run(settings, together, seed, {"data": data.fingerprint}, place, log, progress)
        if together.first:
            found = {stage: run.restored(stage) for stage in stages}
            log.rewind({k: int(v["step"]) for k, v in found.items() if v is not None})
        try:
            return _trained(data, run, name)
        finally:
            log.close()


@dataclass(frozen=True, eq=False)
class _Data:
    """What a downscaling model learns from."""

    spec: StateSpec
    target: Target
    statics: xr.Dataset
    train: Pairs
    held: Pairs
    fingerprint: str

    @classmethod
    def read(
        cls,
        coarse: xr.Dataset,
        fine: xr.Dataset,
        inputs: Sequence[str] | None,
        outputs: Sequence[str] | None,
        statics: Sequence[str] | None,
        validation: tuple[xr.Dataset, xr.Dataset] | None,
        config: DownscalingTraining,
        budget: int,
    ) -> _Data:
        spec, axes = describe(coarse, variables=inputs)
        if inputs is None:
            spec, axes = describe(coarse, variables=sorted(v.name for v in spec.variables))
        for guess in axes.guesses:
            warn(guess, GuessWarning)
        target = Target.of(fine, outputs)
        spec = replace(spec, variables=_in_units_of(spec, target), time_step=None)
        for key in config.transforms:
            names = [variable.name for variable in target.spec.variables]
            if key not in names:
                raise unknown_key(key, names, "the variable", "transforms")
        whole = pairs_of(coarse, fine, spec, target).held(budget)
        static = statics_of(fine, target, statics)
        other = None if validation is None else pairs_of(*validation, spec, target).held(budget)
        train, held = _split(whole, config.held_out, other)
        digest = hashlib.sha256(json.dumps([spec.to_dict(), target.to_dict()]).encode())
        digest.update(train.seconds.tobytes())
        for states in train.take(np.array([0, len(train) - 1])):
            digest.update(np.ascontiguousarray(states).tobytes())
        return cls(spec, target, static, train, held, digest.hexdigest()[:16])


def _split(whole: Pairs, held_out: float, validation: Pairs | None) -> tuple[Pairs, Pairs]:
    """Return the pairs to learn from, and those that are set aside."""
    kept = len(whole) if validation is not None else round(len(whole) * (1 - held_out))
    if kept < 2:
        raise DataError(
            "too few states are common to both Datasets",
            where="xappa.train_downscaler",
            expected="2 times or more, better hundreds",
            got=kept,
            remedy="take longer series",
        )
    train = whole.cut(slice(kept))
    if validation is not None:
        return train, validation
    return train, whole.cut(slice(kept, None)) if kept < len(whole) else train


def _in_units_of(spec: StateSpec, target: Target) -> tuple[VariableSpec, ...]:
    """Return the coarse variables, in the units of the fine ones of the same quantity."""
    named = [variable for variable in target.spec.variables if variable.standard_name]
    units: dict[Any, str] = {(v.standard_name, v.height): v.units for v in named}
    return tuple(
        replace(v, units=units.get((v.standard_name, v.height), v.units)) for v in spec.variables
    )


def _baseline(spec: StateSpec, target: Target) -> tuple[int, ...]:
    """Return the number of the coarse channel of the same quantity as each fine one, or -1."""
    known: dict[Any, int] = {}
    for k, (variable, level) in enumerate(spec.channels):
        quantity = variable.standard_name or variable.name
        known.setdefault((quantity, variable.height, variable.units, level), k)
    return tuple(
        known.get((v.standard_name or v.name, v.height, v.units, level), -1)
        for v, level in target.spec.channels
    )


def _trained(data: _Data, run: Run[DownscalingTraining], name: str) -> CorrDiffModel:
    """Run all stages, and put the model together."""
    config = run.config
    model = _prototype(data, run)
    train, held = Samples(model, data.train), Samples(model, data.held)
    device, folds = run.processes.device, fold_of(len(data.train), config.folds)
    regressions = {}
    for k in (*range(config.folds), -1):
        stage = "mean" if k < 0 else f"mean-{k}"
        rows = np.flatnonzero(folds != k) if k >= 0 else np.arange(len(folds))
        network = _fresh(model.regression.config, run.seed, k + 1).to(device)
        regressions[k] = fit(mean_stage(stage, network, train, held, rows, run), run)
    with _room(run.folder) as room:
        told = [
            _told(train, {k: regressions[k] for k in set(folds.tolist())}, folds, room, "train")
        ]
        told.append(_told(held, regressions, np.full(len(data.held), -1), room, "held"))
        left = _residual_std(train, told[0])
        scaled = model.replaced(scaling=replace(model.scaling, residual_std=left))
        known, judged = (
            Samples(scaled, pairs, means)
            for pairs, means in zip((data.train, data.held), told, strict=True)
        )
        network = _fresh(model.network.config, run.seed, config.folds + 1).to(device)
        diffusion = fit(diffusion_stage(network, known, judged, run), run)
    for part in (regressions[-1], diffusion):
        part.checkpointing = False
    scores = {
        "regression": run.log.last("mean", "error"),
        "denoising": run.log.last("diffusion", "denoising"),
    }
    final = scaled.replaced(
        regression=regressions[-1],
        network=diffusion,
        name=name,
        provenance=_provenance(data, run),
        scores=scores,
    )
    if config.calibrate:
        final = calibrated_on(final, data.held, config.calibrate, run.seed)
    return remember(final)  # type: ignore[return-value]


def _prototype(data: _Data, run: Run[DownscalingTraining]) -> CorrDiffModel:
    """Return the model before it is trained: it knows sizes and statistics."""
    config, spec, target = run.config, data.spec, data.target
    transforms = tuple(
        config.transforms.get(v.name, default_transform(v)) for v in target.channel_variables
    )
    fields = [f.values for f in data.statics.data_vars.values()]
    static = np.stack(fields) if fields else np.zeros((0, 1, 1))
    mean, std = coarse_moments(data.train, spec)
    ones, zeros = np.ones(len(transforms)), np.zeros(len(transforms))
    scaling = Scaling(
        mean,
        std,
        zeros,
        ones,
        ones,
        ones,
        static.mean((1, 2)),
        np.maximum(static.std((1, 2)), 1e-12),
        transforms,
        _baseline(spec, target),
    )
    cutting = None
    if config.patch is not None:
        cutting = Cutting((config.patch[0], config.patch[1]), config.overlap, config.boundary)
    known = spec.n_channels + len(fields)
    span = float(np.ptp(data.train.seconds))
    parts = [*(["year"] if span >= _YEAR else []), "day"]
    parts += ["lead"] if data.train.lead is not None else []
    model = CorrDiffModel(
        spec,
        target,
        data.statics,
        UNet(_sizes(config, known, target, 0)),
        UNet(_sizes(config, target.spec.n_channels, target, known + target.spec.n_channels)),
        scaling,
        label_parts=parts,
        cutting=cutting,
        name="untrained",
    )
    model.check()
    fine_mean, fine_std = fine_moments(model, data.train)
    return model.replaced(scaling=replace(scaling, fine_mean=fine_mean, fine_std=fine_std))


def _sizes(
    config: DownscalingTraining, channels: int, target: Target, condition: int
) -> UNetConfig:
    """Return the sizes of a U-Net; patches are told of the whole domain, too."""
    twice = 2 if config.patch is not None else 1
    return UNetConfig(
        channels * (twice if not condition else 1),
        target.spec.n_channels,
        condition * twice,
        LABELS,
        config.hid_channels,
        tuple(config.multipliers),
        config.hid_blocks,
        tuple(config.attention),
        config.attention_heads,
        config.mod_features,
        config.dropout,
        config.positions,
        boundary="periodic" if target.is_periodic and config.patch is None else "edge",
    )


def _fresh(sizes: UNetConfig, seed: int, number: int) -> UNet:
    """Return a network with first weights that follow from a seed; torch's own are left alone."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed + 7919 * number)
        return UNet(sizes)


@contextmanager
def _room(folder: Path | None) -> Iterator[Path]:
    """Give a folder for means, which are dropped afterwards."""
    with tempfile.TemporaryDirectory(prefix="xappa-means-", dir=folder) as room:
        yield Path(room)


def _told(
    samples: Samples, regressions: Mapping[int, UNet], folds: np.ndarray, room: Path, name: str
) -> np.ndarray:
    """Return what the regression of each time's fold tells, shape (T, c, H, W), on disk."""
    shape = (len(samples), *samples.model.target.spec.shape)
    means = np.lib.format.open_memmap(room / f"{name}.npy", "w+", np.float32, shape)
    for fold, network in regressions.items():
        rows = np.flatnonzero(folds == fold)
        for part in np.split(rows, np.arange(_BLOCK, len(rows), _BLOCK)):
            if len(part):
                means[part] = told_means(samples, network, part)
    return means


def _residual_std(samples: Samples, means: np.ndarray) -> np.ndarray:
    """Return the standard deviation of what regressions leave, shape (c,)."""
    total: Any = 0.0
    for part in samples.pairs.blocks(_BLOCK):
        fields, _, _ = samples.take(part)
        total = total + np.square(fields.numpy() - means[part], dtype=np.float64).sum((0, 2, 3))
    count = len(samples) * means.shape[2] * means.shape[3]
    std: np.ndarray = np.sqrt(np.maximum(total / count, 1e-12))
    return std


def _provenance(data: _Data, run: Run[DownscalingTraining]) -> dict[str, Any]:
    """Return where a model comes from: the settings that differ from the defaults, too."""
    usual, settings = asdict(DownscalingTraining()), asdict(run.config)
    steps = ("mean_steps", "diffusion_steps", "folds", "batch", "learning_rate")
    ends = data.train.seconds[[0, -1]]
    return {
        "method": "xappa.train_downscaler",
        "states": len(data.train),
        "period": [str(t)[:16] for t in from_seconds(ends, data.spec.calendar)],
        "seed": run.seed,
        **{k: v for k, v in settings.items() if k in steps or v != usual[k]},
    }
