"""`fit_gaussian`: an EOF-Gaussian prior from any Dataset, in seconds."""

from __future__ import annotations

import string
from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xappa.bridge import describe
from xappa.cf import from_seconds
from xappa.errors import ArgumentError, DataError, GuessWarning, XappaError, warn
from xappa.models.catalogue import remember
from xappa.models.climatology import Climatology
from xappa.models.eof import Expansion, autocovariance, expand, segments
from xappa.models.gaussian import GaussianModel
from xappa.models.localisation import LocalisingCorrelation, localise
from xappa.models.samples import Samples, read_samples
from xappa.models.tuning import Candidates, Training, choose, regularise
from xappa.units import convert

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["fit_gaussian"]

_DEFAULT_SHRINKAGE = 0.5
#: With fewer states than this, cross-validation would compare noise with noise.
_LEAST_STATES_TO_TUNE = 96
#: Cross-validation looks at a sample of about this many points of a larger state.
_TUNING_POINTS = 4000
#: With fewer states than this, a warning says what can be expected.
_FEW_STATES = 30


def fit_gaussian(
    ds: xr.Dataset,
    *,
    variables: Sequence[str] | None = None,
    modes: int = 60,
    blanket: int | None = None,
    localisation: str | float | Literal["auto"] | None = None,
    inflation: float | Literal["auto"] = 1.0,
    shrinkage: float | Literal["auto"] = _DEFAULT_SHRINKAGE,
    name: str = "gaussian",
) -> GaussianModel:
    """Fit an EOF-Gaussian prior to a Dataset.

    The prior is a climatology (with diurnal and annual cycles where the data span allows), M
    area-weighted EOFs whose components are a stationary Gaussian process over blankets of K states,
    and a residual that makes the variance right at every grid point. Under linear observations its
    posterior is known in closed form.

    Parameters
    ----------
    ds
        Training data: any variables and levels on a rectilinear grid, with a time axis and, if
        there is one, a realization dimension whose members count as further samples. Dask-backed
        data are read in blocks and never held in memory as a whole. With a single state on a
        global grid, its rotations about the Earth's axis serve as samples, and a warning says so.
    variables
        Names of the variables to use; all gridded ones by default.
    modes
        The most EOFs, M, of which at most a third as many are kept as there are states; localised
        priors use twice as many.
    blanket
        K, the number of consecutive states over which the components are correlated explicitly; 4
        by default, fewer where the data are short.
    localisation
        Distance at which correlations reach zero, in metres or with a unit (``"1200 km"``);
        ``"auto"`` chooses it.
    inflation
        Factor on all variances; ``"auto"`` chooses it.
    shrinkage
        Weight, from 0 to 1, with which covariances *between* components at different times are
        drawn to zero; ``"auto"`` chooses it. Values ``"auto"`` are chosen together, by blocked
        cross-validation within ``ds`` alone (`xappa.models.tuning`).
    name
        The model's name.

    Returns
    -------
    GaussianModel
        A bundle: it can be saved, opened, printed and used like any other.

    Raises
    ------
    DataError
        If there are missing values at some times but not at others, or no variance at all.
    ArgumentError
        If an argument is out of its range.
    CoordinateError, UnitsError
        If the Dataset's metadata cannot be understood.

    References
    ----------
    North et al. (1982), doi:10.1175/1520-0493(1982)110<0699:SEITEO>2.0.CO;2 (EOFs);
    Gaspari & Cohn (1999), doi:10.1002/qj.49712555417 (localisation).

    Examples
    --------
    >>> import xappa
    >>> model = xappa.fit_gaussian(xappa.testing.weather(times=40), modes=5)
    >>> model.latent_size, model.blanket
    (5, 4)
    """
    _check_arguments(variables, modes, blanket, inflation, shrinkage)
    if localisation not in (None, "auto"):
        localisation = _metres(localisation)
    spec, axes = describe(ds, variables=variables)
    for guess in axes.guesses:
        warn(guess, GuessWarning)
    samples = read_samples(ds, spec)
    runs = segments(samples.seconds, spec.time_step)
    lags = _blanket(blanket, runs)
    weight = _weights(samples)
    _warn_of_few(samples)
    if not samples.rotated:
        modes = min(modes, max(1, samples.freedom // 3))
    wanted = {"localisation": localisation, "inflation": inflation, "shrinkage": shrinkage}
    chosen = _choose(samples, weight, modes, lags, wanted)
    expansion = expand(samples.anomalies, weight, modes, samples.freedom)
    pcs = expansion.components.reshape(samples.series, len(samples.seconds), -1)
    gamma = regularise(autocovariance(pcs, runs, lags, chosen["shrinkage"]))
    eofs = expansion.eofs
    if chosen["localisation"] is not None:
        correlation = LocalisingCorrelation.of(spec.grid, chosen["localisation"])
        eofs, gamma = localise(eofs, gamma, weight, correlation, 2 * modes)
    residual = np.maximum(expansion.variance - np.einsum("pm,pm->p", eofs, eofs), 0.0)
    residual = np.where(samples.mask, residual * chosen["inflation"], np.nan)
    shape = (len(samples.coefficients), spec.n_channels, *spec.grid.shape)
    model = GaussianModel(
        spec,
        Climatology(samples.terms, samples.coefficients.reshape(shape).astype(np.float32)),
        (eofs * np.sqrt(chosen["inflation"])).astype(np.float32),
        residual,
        weight,
        gamma,
        name=name,
        provenance=_provenance(samples, expansion, residual, chosen),
    )
    remember(model)
    return model


def _check_arguments(
    variables: object, modes: object, blanket: object, inflation: object, shrinkage: object
) -> None:
    def bad(argument: str, expected: str, got: object) -> ArgumentError:
        return ArgumentError(
            f"{argument} is out of range",
            where="xappa.fit_gaussian",
            expected=expected,
            got=repr(got),
            remedy="leave it out for the default",
        )

    def number(value: Any, least: float, most: float, kind: type = Real) -> bool:
        # NumPy's numbers are Real, and its integers Integral; so is bool, which is meant as neither
        return isinstance(value, kind) and not isinstance(value, bool) and least <= value <= most  # type: ignore[operator]

    def count(value: Any) -> bool:
        return number(value, 1, np.inf, Integral)

    if isinstance(variables, str) or (isinstance(variables, Sequence) and not len(variables)):
        raise bad("variables", "a list of one name or more, or None for all", variables)
    if not count(modes):
        raise bad("modes", "an integer, at least 1", modes)
    if blanket is not None and not count(blanket):
        raise bad("blanket", "an integer, at least 1", blanket)
    if inflation != "auto" and not (number(inflation, 0, 1e6) and inflation):
        raise bad("inflation", "a positive number or 'auto'", inflation)
    if shrinkage != "auto" and not number(shrinkage, 0, 1):
        raise bad("shrinkage", "a number from 0 to 1 or 'auto'", shrinkage)


def _warn_of_few(samples: Samples) -> None:
    if samples.count < _FEW_STATES and not samples.rotated:
        warn(
            f"{samples.count} states are few to fit a prior to: what they did not do is taken for "
            "nearly impossible, and analyses will be too sure of themselves. Add states (more "
            "times, or members), or widen the prior with localisation= and inflation=."
        )


def _blanket(blanket: int | None, runs: Sequence[slice]) -> int:
    """Return K: what was asked for, or 4, but at most half of the longest run of states."""
    longest: int = max(run.stop - run.start for run in runs)
    if blanket is None:
        return max(1, min(4, longest // 2))
    if blanket > longest:
        raise ArgumentError(
            "the blanket is longer than the training data",
            where="xappa.fit_gaussian",
            expected=f"at most {longest} consecutive states",
            got=blanket,
            remedy="fit to a longer series without gaps, or ask for a shorter blanket",
        )
    return blanket


def _weights(samples: Samples) -> np.ndarray:
    """Cell area over the channel's mean variance, shape (P,); zero off the state."""
    spec = samples.spec
    variance = np.asarray((samples.anomalies**2).mean(axis=0)).reshape(spec.n_channels, -1)
    area = np.broadcast_to(spec.grid.area_weights().ravel(), variance.shape)
    area = area * samples.mask.reshape(area.shape)
    mean = (variance * area).sum(axis=1) / np.maximum(area.sum(axis=1), 1e-300)
    # What does not vary leaves rounding errors of its size, which are no weather.
    size = np.abs(samples.coefficients[0]).reshape(spec.n_channels, -1).max(axis=1)
    mean = np.where(mean > (1e-10 * size) ** 2, mean, 0.0)
    if not (mean > 0).any():
        raise DataError(
            "the training data do not vary",
            where="xappa.fit_gaussian",
            expected="at least two different states",
            got=f"{samples.count} states with zero variance",
        )
    inverse = np.divide(1.0, mean, out=np.zeros_like(mean), where=mean > 0)
    weights: np.ndarray = (area * inverse[:, None]).ravel()
    return weights


def _choose(
    samples: Samples, weight: np.ndarray, modes: int, blanket: int, wanted: dict[str, Any]
) -> dict[str, Any]:
    """Replace what is ``"auto"`` by values chosen within the training data."""
    fixed = dict(wanted)
    automatic = [key for key, value in wanted.items() if isinstance(value, str) and value == "auto"]
    if not automatic:
        return fixed
    defaults = {"localisation": None, "inflation": 1.0, "shrinkage": _DEFAULT_SHRINKAGE}
    if len(samples.seconds) < _LEAST_STATES_TO_TUNE or samples.spec.time_step is None:
        warn(
            f"{len(samples.seconds)} times are too few to choose {', '.join(automatic)} by "
            f"cross-validation (at least {_LEAST_STATES_TO_TUNE} are needed): defaults are used",
            GuessWarning,
        )
        return {key: defaults[key] if key in automatic else fixed[key] for key in fixed}
    training = _training(samples, weight)
    diameter = float(_diameter(training))
    radii = [None, *np.geomspace(0.3 * diameter, 3 * diameter, 9).tolist()]
    inflations = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0, 2.5)
    candidates = Candidates(
        radii if "localisation" in automatic else [fixed["localisation"]],
        (0.2, 0.5, 0.8) if "shrinkage" in automatic else [fixed["shrinkage"]],
        inflations if "inflation" in automatic else [fixed["inflation"]],
    )
    choice = choose(training, modes, blanket, candidates)
    return {
        "localisation": choice.radius,
        "inflation": choice.inflation,
        "shrinkage": choice.shrinkage,
        "cross_validation": {"log_likelihood": choice.score, "gap_seconds": choice.gap},
    }


def _metres(distance: Any) -> float:
    """Read a distance: metres, or text with a unit."""
    unit, number = "m", distance
    if isinstance(distance, str):
        number = distance.strip().rstrip(string.ascii_letters)
        unit = distance.strip()[len(number) :]
    try:
        metres = float(convert(float(number), unit or "m", "m", where="localisation="))
    except (TypeError, ValueError) as error:
        if isinstance(error, XappaError):
            raise
        metres = 0.0
    if not 0 < metres < np.inf:
        raise ArgumentError(
            "localisation is no distance",
            where="xappa.fit_gaussian",
            expected="a positive number of metres, text such as '1200 km', 'auto', or None",
            got=repr(distance),
        )
    return metres


def _training(samples: Samples, weight: np.ndarray) -> Training:
    """Take what cross-validation looks at: all points of a small state, a sample of a large one."""
    spec = samples.spec
    valid = np.flatnonzero(weight > 0)
    points = valid[:: max(1, len(valid) // _TUNING_POINTS)]
    latitude, longitude = np.meshgrid(spec.grid.latitude, spec.grid.longitude, indexing="ij")
    horizontal = points % latitude.size
    return Training(
        np.asarray(samples.states[..., points]),
        samples.seconds,
        float(spec.time_step or 1.0),
        samples.terms,
        weight[points],
        latitude.ravel()[horizontal],
        longitude.ravel()[horizontal],
    )


def _diameter(training: Training) -> float:
    """Return the largest distance between the corners of the domain, in metres."""
    lat = np.radians([training.latitude.min(), training.latitude.max()])
    span = np.radians(min(180.0, training.longitude.max() - training.longitude.min()))
    cosine = np.sin(lat[0]) * np.sin(lat[1]) + np.cos(lat[0]) * np.cos(lat[1]) * np.cos(span)
    return float(6371e3 * np.arccos(np.clip(cosine, -1, 1)))


def _date(time: Any) -> str:
    """Return a date to the minute; cftime objects say it their own way."""
    return str(np.datetime_as_string(time, unit="m") if isinstance(time, np.datetime64) else time)


def _provenance(
    samples: Samples, expansion: Expansion, residual: np.ndarray, chosen: dict[str, Any]
) -> dict[str, Any]:
    """Say how the prior came about."""
    first, last = from_seconds(samples.seconds[[0, -1]], samples.spec.calendar)
    total = float(np.nansum(expansion.variance * (np.isfinite(residual))))
    left = float(np.nansum(residual)) / max(total * float(chosen["inflation"]), 1e-300)
    return {
        "method": "xappa.fit_gaussian",
        "states": samples.count,
        "rotations": samples.rotated,
        "period": [_date(first), _date(last)],
        "climatology": str(samples.terms),
        "residual_fraction": left,
        "localisation_metres": chosen.pop("localisation"),
        **chosen,
    }
