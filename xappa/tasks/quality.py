r"""Quality control by departures: what does not agree with everything else is found and said.

For a Gaussian prior the departures :math:`d = y - H \bar{x}` have the covariance
:math:`S = R + H B H^\top`. What all other observations and the prior expect of the i-th departure
differs from it by

.. math:: e_i = \frac{(S^{-1} d)_i}{(S^{-1})_{ii}}, \qquad
    \operatorname{Var} e_i = \frac{1}{(S^{-1})_{ii}} ,

so that :math:`e_i` over its standard deviation is the test of a neighbour check with all
neighbours and all times at once (Lorenc & Hammon 1988). The worst are rejected first, as they spoil
what is expected of the others. Robust likelihoods weigh instead of rejecting: an observation of
weight w has the error variance R / w, with

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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xappa.errors import check_settings
from xappa.observe import ObservationOperator, ObservationSpec, Status

if TYPE_CHECKING:
    from xappa.tasks.posterior import Posterior

__all__ = ["LIKELIHOODS", "QualityControl", "controlled"]

LIKELIHOODS = ("gaussian", "huber", "student-t")
#: Observations whose departures are looked at together.
_TOGETHER = 4000
#: Share of the largest test that is rejected at a time; those below may be victims of it.
_WORST = 0.7
_ROUNDS = 50
_REWEIGHTED = 8


@dataclass(frozen=True)
class QualityControl:
    """How observations are checked against the prior and against each other.

    Parameters
    ----------
    departure
        Standard deviations beyond which an observation is rejected; None rejects none.
    likelihood
        ``"gaussian"``, or ``"huber"`` or ``"student-t"``, which weigh down what is far off.
    huber
        Standard deviations beyond which ``"huber"`` is linear.
    freedom
        Degrees of freedom of ``"student-t"``.

    Examples
    --------
    >>> QualityControl(likelihood="student-t").departure
    4.0
    """

    departure: float | None = 4.0
    likelihood: str = "gaussian"
    huber: float = 1.5
    freedom: float = 4.0

    def __post_init__(self) -> None:
        checks = {
            "departure": self.departure is None or _positive(self.departure),
            "likelihood": self.likelihood in LIKELIHOODS,
            "huber": _positive(self.huber),
            "freedom": _positive(self.freedom),
        }
        check_settings(
            self,
            checks,
            what="quality control",
            where="quality_control=",
            expected="departure > 0 or None, likelihood one of "
            f"{', '.join(LIKELIHOODS)}, huber > 0, freedom > 0",
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


def controlled(
    specs: Sequence[ObservationSpec], posterior: Posterior, control: QualityControl
) -> tuple[ObservationSpec, ...]:
    """Return observations of which the suspicious are rejected, or have larger errors.

    Parameters
    ----------
    specs
        The observation arrays.
    posterior
        Of a trajectory, given them: it holds the prior, their operator and R.
    control
        What is suspicious.
    """
    operator = posterior.operator
    departure, covariance = posterior.departures()
    good = np.ones(operator.n_used, bool)
    weight = np.ones(operator.n_used)
    random = operator.error_std**2
    order = np.argsort(operator.time, kind="stable")
    for first in range(0, operator.n_used, _TOGETHER):
        part = order[first : first + _TOGETHER]
        s = covariance(part)
        good[part] = _agreeing(departure[part], s, control)
        kept = part[good[part]]
        if control.likelihood != "gaussian" and len(kept):
            s = s[np.ix_(good[part], good[part])]
            weight[kept] = _weights(departure[kept], s, random[kept], control)
    return _applied(specs, operator, good, weight)


def _tests(d: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return e (n,) and its variance (n,), given departures and their covariance."""
    inverse = np.linalg.inv(s)
    precision = np.diag(inverse)
    return (inverse @ d) / precision, 1 / precision


def _agreeing(d: np.ndarray, s: np.ndarray, control: QualityControl) -> np.ndarray:
    good = np.ones(len(d), bool)
    if control.departure is None:
        return good
    for _ in range(_ROUNDS):
        e, variance = _tests(d[good], s[np.ix_(good, good)])
        t = np.abs(e) / np.sqrt(variance)
        limit = max(control.departure, _WORST * t.max(initial=0.0))
        bad = t > limit
        if not bad.any():
            break
        good[np.flatnonzero(good)[bad]] = False
        if not good.any():
            break
    return good


def _weights(
    d: np.ndarray, s: np.ndarray, random: np.ndarray, control: QualityControl
) -> np.ndarray:
    """Weigh observations again and again until weights and tests agree."""
    w = np.ones(len(d))
    for _ in range(_REWEIGHTED):
        inflated = random * (1 / w - 1)
        e, variance = _tests(d, s + np.diag(inflated))
        # against the error that the observation claims, whatever its weight in this round
        w = control.weights(e / np.sqrt(np.maximum(variance - inflated, 1e-300)))
    return w


def _applied(
    specs: Sequence[ObservationSpec],
    operator: ObservationOperator,
    good: np.ndarray,
    weight: np.ndarray,
) -> tuple[ObservationSpec, ...]:
    result = []
    for spec, status, block in zip(specs, operator.status, operator.blocks, strict=True):
        elements = np.flatnonzero(status == Status.USED)
        own, std = spec.status.copy(), spec.error_std.copy()
        own[elements[~good[block.used]]] = Status.DEPARTURE
        std[elements] = std[elements] / np.sqrt(weight[block.used])
        result.append(replace(spec, status=own, error_std=std))
    return tuple(result)
