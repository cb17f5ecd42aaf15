r"""Quality control: what does not agree with everything else is found, survived and said.

In this order:

1. *gross errors*: values that no atmosphere has (`xappa.observe.limits`);
2. *background check*: departures from the prior, each by itself, against the standard deviation
   that they should have;
3. *departure check*: each against what the prior and all others expect of it (below);
4. *super-obbing* or *thinning* of what is left (`xappa.observe.thinning`);
5. *robust likelihood*: weights for what remains doubtful.

For a Gaussian prior the departures :math:`d = y - H \bar{x}` have the covariance
:math:`S = R + H B H^\top`. What all other observations and the prior expect of the i-th departure
differs from it by

.. math:: e_i = \frac{(S^{-1} d)_i}{(S^{-1})_{ii}}, \qquad
    \operatorname{Var} e_i = \frac{1}{(S^{-1})_{ii}} ,

so that :math:`e_i` over its standard deviation is the test of a neighbour check with all
neighbours and all times at once (Lorenc & Hammon 1988). The worst are rejected first, as they spoil
what is expected of the others. Robust likelihoods weigh instead of rejecting: an observation of
weight w has the error variance R / w (the part beyond R is independent of other errors), with

=========  =====================================================================================
huber      :math:`w = \min(1, k / |t|)`
student-t  :math:`w = (\nu + 1) / (\nu + t^2)`
=========  =====================================================================================

where t is the same test, of the error that the observation claims. With a learned prior the
covariance of departures is not known: each observation is compared with the climatology alone.

References
----------
Lorenc & Hammon (1988), Objective quality control of observations using Bayesian methods,
doi:10.1002/qj.49711448012. Tavolato & Isaksen (2015), On the use of a Huber norm for observation
quality control in the ECMWF 4D-Var, doi:10.1002/qj.2440.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xappa.cf import timedelta_seconds
from xappa.errors import XappaError, check_settings
from xappa.observe import ObservationOperator, ObservationSpec, Status
from xappa.observe.limits import beyond_limits
from xappa.observe.thinning import superobbed, thinned
from xappa.units import metres

if TYPE_CHECKING:
    from xappa.observe.block import Block
    from xappa.tasks.posterior import Posterior

__all__ = ["LIKELIHOODS", "QualityControl", "controlled"]

LIKELIHOODS = ("gaussian", "huber", "student-t")
#: Observations whose departures are looked at together.
_TOGETHER = 4000
#: Share of the largest test that is rejected at a time; those below may be victims of it.
_WORST = 0.7
_ROUNDS = 50
_REWEIGHTED = 8
#: The least weight, so that what is weighed down stays numerically an observation.
_LEAST = 1e-4


@dataclass(frozen=True)
class QualityControl:
    r"""How observations are checked against the prior and against each other.

    Parameters
    ----------
    gross
        Whether values that no atmosphere has are rejected.
    background
        Standard deviations of the departure from the prior, :math:`\sqrt{S_{ii}}`, beyond which an
        observation is rejected; None rejects none.
    departure
        The same for the departure from what the prior and all others expect.
    likelihood
        ``"gaussian"``, or ``"huber"`` or ``"student-t"``, which weigh down what is far off.
    huber
        Standard deviations beyond which ``"huber"`` is linear.
    freedom
        Degrees of freedom of ``"student-t"``.
    thinning
        Width of cells of which one observation is kept, in metres or with a unit (``"100 km"``).
    superobbing
        Width of cells whose observations are averaged; instead of ``thinning``.
    period
        Periods of time within which observations are thinned or averaged (``"1h"``); None for each
        time by itself.

    Examples
    --------
    >>> QualityControl(likelihood="student-t", thinning="50 km").departure
    4.0
    """

    gross: bool = True
    background: float | None = 6.0
    departure: float | None = 4.0
    likelihood: str = "gaussian"
    huber: float = 1.5
    freedom: float = 4.0
    thinning: float | str | None = None
    superobbing: float | str | None = None
    period: float | str | None = None

    def __post_init__(self) -> None:
        checks = {
            "gross": isinstance(self.gross, bool),
            "background": self.background is None or _positive(self.background),
            "departure": self.departure is None or _positive(self.departure),
            "likelihood": self.likelihood in LIKELIHOODS,
            "huber": _positive(self.huber),
            "freedom": _positive(self.freedom),
            "thinning": self.thinning is None or _readable(metres, self.thinning),
            "superobbing": self.superobbing is None
            or (self.thinning is None and _readable(metres, self.superobbing)),
            "period": self.period is None or _readable(timedelta_seconds, self.period),
        }
        check_settings(
            self,
            checks,
            what="quality control",
            where="quality_control=",
            expected="background and departure > 0 or None, likelihood one of "
            f"{', '.join(LIKELIHOODS)}, huber > 0, freedom > 0, thinning or superobbing a length, "
            "period a duration",
        )

    def weights(self, t: np.ndarray) -> np.ndarray:
        """Return weights (n,) of observations whose tests are t (n,)."""
        if self.likelihood == "huber":
            return np.asarray(np.minimum(1.0, self.huber / np.maximum(np.abs(t), 1e-12)))
        if self.likelihood == "student-t":
            return np.asarray((self.freedom + 1) / (self.freedom + t**2))
        return np.ones_like(t)


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < np.inf


def _readable(read: Callable[[Any], float], value: Any) -> bool:
    try:
        return _positive(float(read(value)))
    except (XappaError, TypeError, ValueError):
        return False


def controlled(
    specs: Sequence[ObservationSpec],
    posterior_given: Callable[[Sequence[ObservationSpec]], Posterior],
    control: QualityControl,
) -> tuple[ObservationSpec, ...]:
    """Return observations of which the suspicious are rejected, or have larger errors.

    Parameters
    ----------
    specs
        The observation arrays.
    posterior_given
        Gives the posterior of the trajectory given such arrays: it holds the prior, their operator
        and R.
    control
        What is suspicious.
    """
    if control.gross:
        specs = [_without(spec, beyond_limits(spec), Status.GROSS_ERROR) for spec in specs]
    if control.background is not None or control.departure is not None:
        specs = _checked(specs, posterior_given(specs), control)
    if control.thinning is not None or control.superobbing is not None:
        specs = _fewer(specs, posterior_given(specs).operator, control)
    if control.likelihood != "gaussian":
        specs = _weighed(specs, posterior_given(specs), control)
    return tuple(specs)


def _without(spec: ObservationSpec, bad: np.ndarray, status: Status) -> ObservationSpec:
    own = spec.status.copy()
    own[bad & (own == Status.USED)] = status
    return replace(spec, status=own)


def _parts(operator: ObservationOperator) -> Iterator[np.ndarray]:
    """Yield which observations are looked at together: neighbours in time."""
    order = np.argsort(operator.time, kind="stable")
    for first in range(0, operator.n_used, _TOGETHER):
        yield order[first : first + _TOGETHER]


def _checked(
    specs: Sequence[ObservationSpec], posterior: Posterior, control: QualityControl
) -> list[ObservationSpec]:
    """Reject by the background check and by the departure check."""
    operator = posterior.operator
    departure, covariance = posterior.departures()
    found = np.zeros(operator.n_used, np.int8)
    for part in _parts(operator):
        s, d = covariance(part), departure[part]
        own = np.zeros(len(part), np.int8)
        if control.background is not None:
            own[np.abs(d) > control.background * np.sqrt(np.diag(s))] = Status.BACKGROUND
        kept = np.flatnonzero(own == Status.USED)
        if control.departure is not None and kept.size:
            good = _agreeing(d[kept], s[np.ix_(kept, kept)], control.departure)
            own[kept[~good]] = Status.DEPARTURE
        found[part] = own
    result = []
    for spec, elements, block in _used_elements(specs, operator):
        status = spec.status.copy()
        status[elements] = found[block.used]
        result.append(replace(spec, status=status))
    return result


def _used_elements(
    specs: Sequence[ObservationSpec], operator: ObservationOperator
) -> Iterator[tuple[ObservationSpec, np.ndarray, Block]]:
    """Yield each array with its elements that are used and its block of the operator."""
    for spec, status, block in zip(specs, operator.status, operator.blocks, strict=True):
        yield spec, np.flatnonzero(status == Status.USED), block


def _tests(d: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return e (n,) and its variance (n,), given departures and their covariance."""
    inverse = np.linalg.inv(s)
    precision = np.diag(inverse)
    return (inverse @ d) / precision, 1 / precision


def _agreeing(d: np.ndarray, s: np.ndarray, limit: float) -> np.ndarray:
    """Return which observations (n,) agree with the others, the worst taken away first."""
    good = np.ones(len(d), bool)
    for _ in range(_ROUNDS):
        e, variance = _tests(d[good], s[np.ix_(good, good)])
        t = np.abs(e) / np.sqrt(variance)
        bad = t > max(limit, _WORST * t.max(initial=0.0))
        if not bad.any():
            break
        good[np.flatnonzero(good)[bad]] = False
        if not good.any():
            break
    return good


def _fewer(
    specs: Sequence[ObservationSpec], operator: ObservationOperator, control: QualityControl
) -> list[ObservationSpec]:
    """Thin, or average, what is used."""
    length = metres(control.superobbing or control.thinning)
    period = None if control.period is None else timedelta_seconds(control.period)
    reduce = thinned if control.superobbing is None else superobbed
    return [
        reduce(spec, elements, length, period)
        for spec, elements, _ in _used_elements(specs, operator)
    ]


def _weighed(
    specs: Sequence[ObservationSpec], posterior: Posterior, control: QualityControl
) -> list[ObservationSpec]:
    """Give observations that are doubtful larger errors."""
    operator = posterior.operator
    departure, covariance = posterior.departures()
    weight, random = np.ones(operator.n_used), operator.error_std**2
    for part in _parts(operator):
        weight[part] = _weights(departure[part], covariance(part), random[part], control)
    result = []
    for spec, elements, block in _used_elements(specs, operator):
        more = np.zeros(spec.size)
        more[elements] = random[block.used] * (1 / weight[block.used] - 1)
        if spec.structure is None:
            result.append(replace(spec, error_std=np.sqrt(spec.error_std**2 + more)))
        else:  # beside the correlated errors, so that the others do not answer for it
            structure = replace(spec.structure, inflation=more)
            result.append(replace(spec, structure=structure))
    return result


def _weights(
    d: np.ndarray, s: np.ndarray, random: np.ndarray, control: QualityControl
) -> np.ndarray:
    """Weigh observations again and again until weights and tests agree.

    Weights are at most one: no observation is trusted more than it claims.
    """
    w = np.ones(len(d))
    for _ in range(_REWEIGHTED):
        inflated = random * (1 / w - 1)
        e, variance = _tests(d, s + np.diag(inflated))
        # against the error that the observation claims, whatever its weight in this round
        claimed = np.maximum(variance - inflated, 1e-3 * random)
        w = np.clip(control.weights(e / np.sqrt(claimed)), _LEAST, 1.0)
    return w
