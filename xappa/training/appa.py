r"""Training of a latent diffusion prior, in two stages, from a Dataset of any size.

1. The autoencoder: mean squared error of standardised states, weighted by area, with noise added to
   the latents so that the decoder is smooth (`xappa.training.autoencoder`).
2. The denoiser of blankets of latents: denoising score matching (`xappa.training.denoiser`). An
   exponential moving average of the weights is what is kept, in both stages.

Weights are drawn at first, or are those of a model that goes on (`xappa.training.start`).

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
from xappa.training.job import said_in, settings_of, start_in
from xappa.training.latents import Latents, encoded
from xappa.training.log import Log
from xappa.training.loop import Run, fit
from xappa.training.start import Start, check_steps
from xappa.training.statistics import Statistics, statistics_of

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["train"]

_STAGES = ("autoencoder", "denoiser")
_YEAR = 360 * 86400.0
#: States from which what the autoencoder loses is estimated, about, at most.
_ENOUGH = 2048


def train(
    ds: xr.Dataset,
    config: AppaTraining | str | Path | None = None,
    *,
    start: AppaModel | str | Path | None = None,
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
        TOML file (of which the preset, ``start`` and the table ``[training]`` count), or an
        `AppaTraining`; by default ``"tiny"``, for minutes on two cores.
    start
        A model to go on from, its name in the catalogue, or the path of its bundle; by default
        what the file ``config`` names, or nothing.

        Both networks begin with its weights, and it standardises the states; variables, levels and
        grid are its own, and ``ds`` may hold more of the former two. What the denoiser is told of
        dates stays as it was. Sizes come from it: those that are said, by entries of a file or by
        other values than the defaults in an `AppaTraining`, must be the same; those of a preset do
        not count.

        With ``autoencoder_steps=0`` the autoencoder is kept, and with it the latents, how they are
        standardised, and the Gaussian that the denoiser departs from: the denoiser alone goes on.
        With ``denoiser_steps=0`` it is the decoder alone that goes on: the encoder, the latents
        and the denoiser are kept. With steps for both, latents change: they are standardised anew,
        the Gaussian is estimated anew, and the denoiser goes on with those.

        The learning rate rises and falls as in any training, as the optimiser knows nothing of the
        former one; the moving average begins with the model's weights, and step 0 in the log says
        what these are worth.
    variables
        Names of the variables to use; all gridded ones by default, in alphabetical order. With
        ``start``, those among which the model's are looked for.
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
        If ``config`` or ``seed`` is not usable, the folder holds another training, ``start`` is no
        latent diffusion prior or ``config`` contradicts it, or a stage has no steps and there is no
        start.
    BundleError
        If ``start`` cannot be opened.
    DataError
        If values are missing at some times but not at others, or where the start knows some, do
        not vary, or too few states follow each other.
    CoordinateError, UnitsError
        If the Dataset's metadata cannot be understood.
    HandshakeError
        If ``validation`` does not fit ``ds``, or either does not fit ``start``.
    CheckpointError
        If the folder cannot be written to, or a checkpoint in it cannot be read.
    TrainingError
        If the loss is not finite, or the processes cannot share a batch.

    References
    ----------
    Andry et al. (2025), arXiv:2504.18720.
    """
    settings = settings_of(config, AppaTraining)
    origin = start_in(config) if start is None else start
    begin = None if origin is None else Start.of(origin)
    if begin is not None:
        settings = begin.settings(settings, said_in(config))
    check_steps(settings, begin)
    place = None if folder is None else Path(folder)
    if seed is None and place is not None and resume:
        seed = _kept_seed(place)
    seed = seed_of(seed)
    with processes() as together:
        seed = together.from_first(seed)
        data, identity = _read(ds, variables, validation, settings, begin, place, together)
        if place is not None and not resume and together.first:
            for stage in _STAGES:
                (place / f"{stage}.pt").unlink(missing_ok=True)
        together.wait()
        log = Log(place if together.first else None)
        run = Run(settings, together, seed, identity, place, log, progress, begin is not None)
        if together.first:
            found = {stage: run.restored(stage) for stage in _STAGES}
            log.rewind({k: int(v["step"]) for k, v in found.items() if v is not None})
        try:
            return _trained(data, run, begin, name)
        finally:
            log.close()


def _kept_seed(folder: Path) -> int | None:
    """Return the seed of the training in a folder, of which a stage may have no checkpoint."""
    kept = (kept_identity(folder / f"{stage}.pt").get("seed") for stage in _STAGES)
    return next((seed for seed in kept if seed is not None), None)


def _read(
    ds: xr.Dataset,
    variables: list[str] | None,
    validation: xr.Dataset | None,
    config: AppaTraining,
    start: Start | None,
    folder: Path | None,
    together: Processes,
) -> tuple[TrainingData, dict[str, Any]]:
    """Return the data, and what tells a training on them, from this start, from others."""
    if start is None:
        spec, guesses = _described(ds, variables)
    else:
        spec = start.model.spec
        ds, guesses = start.fitted(ds, variables)
        if validation is not None:
            validation, _ = start.fitted(validation, variables)
    budget = allowed(config.memory, together.size)
    whole = open_series(ds, spec, budget)
    for guess in guesses:
        warn(guess, GuessWarning)
    other = None if validation is None else open_series(validation, spec, budget)
    train, held = split(whole, config.held_out, other, config.blanket)
    identity: dict[str, Any] = {"data": _fingerprint(train)}
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
    if start is not None:
        statistics = start.statistics(statistics)
        identity |= start.identity(config)
    return TrainingData(train, held, statistics), identity


def _described(ds: xr.Dataset, variables: list[str] | None) -> tuple[StateSpec, tuple[str, ...]]:
    """Return what states a Dataset holds, and what was guessed."""
    spec, axes = describe(ds, variables=variables)
    if variables is None:  # stores list what they hold in any order, another one each time
        spec, axes = describe(ds, variables=sorted(variable.name for variable in spec.variables))
    return spec, axes.guesses


def _fingerprint(series: Series) -> str:
    """Return what tells training data from others: labels, times, and the first and last state."""
    digest = hashlib.sha256(json.dumps(series.spec.to_dict(), sort_keys=True).encode())
    digest.update(series.seconds.tobytes())
    ends = series.take(np.array([0, len(series) - 1]))
    digest.update(np.ascontiguousarray(ends).tobytes())
    return digest.hexdigest()[:16]


def _trained(
    data: TrainingData, run: Run[AppaTraining], start: Start | None, name: str
) -> AppaModel:
    """Run both stages, and put the model together."""
    config, device, spec = run.config, run.processes.device, data.spec
    encoder, network = _drawn(spec, run) if start is None else start.networks(config)
    autoencoder = fit(autoencoder_stage(encoder.to(device), data, run), run)
    del encoder  # its weights without average
    latents = encoded(autoencoder, data, run)
    span = float(data.seconds[-1] - data.seconds[0])
    known = ("year", "day") if span >= _YEAR else ("day",)
    parts = known if start is None else start.model.date_parts
    if start is not None and start.keeps_latents(config):
        latents = start.standardised(latents)
    elif network.gaussian is not None and not run.begun("denoiser"):
        told = tuple(part for part in parts if part in known)
        network.gaussian.load_state_dict(_gaussian(latents, data, told, run))
    denoiser = fit(denoiser_stage(network.to(device), latents, data, parts, run), run)
    model = AppaModel(
        spec if start is None else start.model.spec,
        autoencoder,
        denoiser,
        config.schedule,
        _normalisation(data.statistics, latents),
        parts,
        name=name,
        provenance=_provenance(data, run, start),
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


def _drawn(spec: StateSpec, run: Run[AppaTraining]) -> tuple[ConvAutoencoder, LatentTransformer]:
    """Return both networks with weights that are drawn."""
    config, device = run.config, run.processes.device
    sizes = autoencoder_config(spec, config)
    # Layers draw their first weights from torch's own generator, which is left as it was.
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type="cuda"):
        torch.manual_seed(run.seed)
        return ConvAutoencoder(sizes), LatentTransformer(transformer_config(sizes, config))


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


def _provenance(data: TrainingData, run: Run[AppaTraining], start: Start | None) -> dict[str, Any]:
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
        **({} if start is None else {"start": start.provenance}),
    }
