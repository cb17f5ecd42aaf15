r"""Training of a latent diffusion prior, in two stages, from a Dataset of any size.

1. The autoencoder: mean squared error of standardised states, weighted by area, with noise added to
   the latents so that the decoder is smooth (`xappa.training.autoencoder`).
2. The denoiser of blankets of latents: denoising score matching (`xappa.training.denoiser`). An
   exponential moving average of the weights is what is kept, in both stages.

The last part of the data is set aside, or other data are given: from these the reconstruction error
is estimated, which belongs to the error of observations, and both stages are judged while they run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xappa.bridge import StateSpec, describe
from xappa.cf import from_seconds
from xappa.diffusion.noise import seed_of
from xappa.errors import GuessWarning, warn
from xappa.models.appa.calibration import reconstruction_error
from xappa.models.appa.model import AppaModel
from xappa.models.appa.normalisation import Normalisation, date_features
from xappa.models.catalogue import remember
from xappa.nn.autoencoder import ConvAutoencoder
from xappa.nn.transformer import LatentTransformer
from xappa.training.autoencoder import autoencoder_config, autoencoder_stage
from xappa.training.checkpoint import kept_identity, load_arrays, save_arrays
from xappa.training.config import AppaTraining
from xappa.training.data import Series, TrainingData, allowed, open_series, split
from xappa.training.denoiser import denoiser_stage, transformer_config
from xappa.training.distributed import Processes, processes
from xappa.training.gaussian import gaussian_of
from xappa.training.job import settings_of
from xappa.training.latents import Latents, encoded
from xappa.training.log import Log
from xappa.training.loop import Run, fit
from xappa.training.statistics import Statistics, statistics_of

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["train"]

_YEAR = 360 * 86400.0
#: States from which what the autoencoder loses is estimated, about, at most.
_ENOUGH = 2048


def train(
    ds: xr.Dataset,
    config: AppaTraining | str | Path | None = None,
    *,
    variables: list[str] | None = None,
    seed: int | None = 0,
    name: str = "appa",
    folder: str | Path | None = None,
    resume: bool = True,
    validation: xr.Dataset | None = None,
    progress: bool | None = None,
) -> AppaModel:
    """Train a latent diffusion prior on a Dataset.

    Parameters
    ----------
    ds
        Training data: complete states, at regular times but for gaps. Dask-backed data, and what
        was opened and not yet read, may exceed the memory.
    config
        Sizes and steps: a preset (``"tiny"``, ``"small"``, ``"base"``, ``"appa"``), the path of a
        TOML file (of which the preset and the table ``[training]`` count), or an `AppaTraining`;
        by default ``"tiny"``, for minutes on two cores.
    variables
        Names of the variables to use; all gridded ones by default, in alphabetical order.
    seed
        Of the first weights, the batches and the noise; None takes that of the training that goes
        on, or draws one, which is recorded.
    name
        The model's name.
    folder
        Where checkpoints and the log go; None writes nothing.
    resume
        Whether a training that the folder holds goes on; else it is replaced.
    validation
        States to judge by; by default the end of ``ds``, a share of ``config.held_out``.
    progress
        Whether progress bars are shown; None follows ``xappa.set_options(progress=...)``.

    Returns
    -------
    AppaModel
        A bundle: it can be saved, opened, printed and used like any other. Under ``torchrun``,
        every process returns it.

    Raises
    ------
    ArgumentError
        If ``config`` or ``seed`` is not usable, or the folder holds another training.
    DataError
        If values are missing at some times but not at others, do not vary, or too few states
        follow each other.
    CoordinateError, UnitsError
        If the Dataset's metadata cannot be understood.
    HandshakeError
        If ``validation`` does not fit ``ds``.
    CheckpointError
        If the folder cannot be written to, or a checkpoint in it cannot be read.
    TrainingError
        If the loss is not finite, or the processes cannot share a batch.

    References
    ----------
    Andry et al. (2025), arXiv:2504.18720.
    """
    settings = settings_of(config, AppaTraining)
    place = None if folder is None else Path(folder)
    if seed is None and place is not None and resume:
        seed = kept_identity(place / "autoencoder.pt").get("seed")
    seed = seed_of(seed)
    with processes() as together:
        seed = together.from_first(seed)
        data, identity = _read(ds, variables, validation, settings, place, together)
        if place is not None and not resume and together.first:
            for stage in ("autoencoder", "denoiser"):
                (place / f"{stage}.pt").unlink(missing_ok=True)
        together.wait()
        log = Log(place if together.first else None)
        run = Run(settings, together, seed, identity, place, log, progress)
        if together.first:
            found = {stage: run.restored(stage) for stage in ("autoencoder", "denoiser")}
            log.rewind({k: int(v["step"]) for k, v in found.items() if v is not None})
        try:
            return _trained(data, run, name)
        finally:
            log.close()


def _read(
    ds: xr.Dataset,
    variables: list[str] | None,
    validation: xr.Dataset | None,
    config: AppaTraining,
    folder: Path | None,
    together: Processes,
) -> tuple[TrainingData, dict[str, Any]]:
    """Return the data, and what tells them from others."""
    spec, axes = describe(ds, variables=variables)
    if variables is None:  # stores list what they hold in any order, another one each time
        spec, axes = describe(ds, variables=sorted(variable.name for variable in spec.variables))
    budget = allowed(config.memory, together.size)
    whole = open_series(ds, spec, budget)
    for guess in axes.guesses:
        warn(guess, GuessWarning)
    other = None if validation is None else open_series(validation, spec, budget)
    train, held = split(whole, config.held_out, other, config.blanket)
    identity = {"data": _fingerprint(train)}
    mine = {**identity, "climatology": config.climatology}
    arrays: Mapping[str, np.ndarray] | None = None
    if together.first:
        path = None if folder is None else folder / "statistics.npz"
        arrays = None if path is None else load_arrays(path, mine)
        if arrays is None:
            arrays = statistics_of(train, config.climatology).arrays
            if path is not None:
                save_arrays(path, mine, arrays)
    statistics = Statistics.from_arrays(together.from_first(arrays))
    return TrainingData(train, held, statistics), identity


def _fingerprint(series: Series) -> str:
    """Return what tells training data from others: labels, times, and the first and last state."""
    digest = hashlib.sha256(json.dumps(series.spec.to_dict(), sort_keys=True).encode())
    digest.update(series.seconds.tobytes())
    ends = series.take(np.array([0, len(series) - 1]))
    digest.update(np.ascontiguousarray(ends).tobytes())
    return digest.hexdigest()[:16]


def _trained(data: TrainingData, run: Run[AppaTraining], name: str) -> AppaModel:
    """Run both stages, and put the model together."""
    config, device, spec = run.config, run.processes.device, data.spec
    sizes = autoencoder_config(spec, config)
    # Layers draw their first weights from torch's own generator, which is left as it was.
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type="cuda"):
        torch.manual_seed(run.seed)
        encoder = ConvAutoencoder(sizes)
        network = LatentTransformer(transformer_config(sizes, config))
    autoencoder = fit(autoencoder_stage(encoder.to(device), data, run), run)
    del encoder  # its weights without average
    latents = encoded(autoencoder, data, run)
    span = float(data.seconds[-1] - data.seconds[0])
    parts = ("year", "day") if span >= _YEAR else ("day",)
    if network.gaussian is not None and not run.begun("denoiser"):
        network.gaussian.load_state_dict(_gaussian(latents, data, parts, run))
    denoiser = fit(denoiser_stage(network.to(device), latents, data, parts, run), run)
    model = AppaModel(
        spec,
        autoencoder,
        denoiser,
        config.schedule,
        _normalisation(data.statistics, latents),
        parts,
        name=name,
        provenance=_provenance(data, run),
        scores={
            "reconstruction": run.log.last("autoencoder", "reconstruction"),
            "denoising": run.log.last("denoiser", "denoising"),
        },
    )
    autoencoder.checkpointing = denoiser.checkpointing = False  # those who guide decide anew
    states = data.held.states.reshape(-1, *spec.shape)[:: max(1, len(data.held) // _ENOUGH)]
    lost = reconstruction_error(model, states) if run.processes.first else None
    lost = run.processes.from_first(lost)
    return remember(model.with_normalisation(reconstruction=lost))  # type: ignore[return-value]


def _gaussian(
    latents: Latents, data: TrainingData, parts: tuple[str, ...], run: Run[AppaTraining]
) -> dict[str, torch.Tensor]:
    """Estimate the Gaussian that the denoiser departs from, in the first process for all."""
    config, train = run.config, data.train
    found = None
    if run.processes.first:
        dates = date_features(train.seconds, data.spec.calendar, parts)
        found = gaussian_of(
            latents, train, dates, config.blanket, config.modes, config.latent_noise
        )
    return run.processes.from_first(found)


def _normalisation(own: Statistics, latents: Latents) -> Normalisation:
    return Normalisation(own.mean, own.std, latents.mean, latents.std, 0 * own.std, own.missing)


def _provenance(data: TrainingData, run: Run[AppaTraining]) -> dict[str, Any]:
    """Return where a model comes from: the settings that differ from the defaults, too."""
    usual = asdict(AppaTraining())
    steps = ("autoencoder_steps", "denoiser_steps", "batch", "learning_rate")
    settings = asdict(run.config)
    spec: StateSpec = data.spec
    return {
        "method": "xappa.train",
        "states": len(data.train) + (len(data.held) if data.held is not data.train else 0),
        "period": [str(t)[:16] for t in from_seconds(data.seconds[[0, -1]], spec.calendar)],
        "seed": run.seed,
        **{k: v for k, v in settings.items() if k in steps or v != usual[k]},
    }
