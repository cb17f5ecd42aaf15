"""Settings of the posterior sampling methods."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from xappa.errors import check_settings

__all__ = ["METHODS", "STITCHINGS", "Guidance"]

#: How `xappa.diffusion.blankets.Cut` stitches.
STITCHINGS = ("symmetrical", "causal", "average")
METHODS = ("exact", "mmps", "jfps", "sda", "dps")


@dataclass(frozen=True)
class Guidance:
    """How observations guide the draws.

    Parameters
    ----------
    solver
        Krylov solver of ``mmps`` and ``jfps``: ``"cg"``, or ``"gmres"`` where Jacobians are not
        symmetric; None for the former with a Gaussian prior and the latter with a learned one.
    iterations
        The most Krylov iterations; None for as many as observations, at most 100, with a Gaussian
        prior, and 3 with a learned one.
    rtol
        Relative residual at which a member's solve stops.
    gamma
        Of ``sda``, see `xappa.diffusion.guidance.SDADenoiser`.
    zeta
        Of ``dps``, see `xappa.diffusion.sampling.DPSSampler`.
    covariance
        Of ``mmps``, for the solve: ``"tweedie"`` or ``"simple"``, see
        `xappa.diffusion.guidance.MMPSDenoiser`.
    whiten
        Whether the solve is scaled by the errors of the observations.
    precondition
        Of ``mmps`` with a learned prior whose denoiser departs from a Gaussian: whether the solve
        begins from what that Gaussian would make of the observations, so that one iteration does
        what dozens do without.
    gaussian_above
        Of forecasts with such a prior: the noise level, in standard deviations of the latents,
        above which the covariance is that of the Gaussian, and not Tweedie's. The Jacobian of a
        network is multiplied by the square of the noise, and its errors with it. None for nowhere.
        (Where states are observed, the Gaussian is too sure of what it makes of them.)
    scope
        With a learned prior: whether each ``"blanket"`` is guided by itself before they are
        stitched, or the whole ``"trajectory"`` after, which decodes each state once instead of
        once for each blanket, and is less accurate where states correlate beyond a blanket.
    stitching
        How blankets are stitched: ``"symmetrical"``, ``"causal"`` or ``"average"``, see
        `xappa.diffusion.blankets`.
    overlap
        States that a blanket shares with the next one; None for half a blanket.
    square_root
        For ``exact``: whether to draw by the exact square root instead of perturbed observations.

    Examples
    --------
    >>> Guidance(iterations=1).iterations
    1
    """

    solver: str | None = None
    iterations: int | None = None
    rtol: float = 1e-2
    gamma: float = 1.0
    zeta: float = 1.0
    covariance: str = "tweedie"
    whiten: bool = True
    precondition: bool = True
    gaussian_above: float | None = 2.0
    scope: str = "blanket"
    stitching: str = "symmetrical"
    overlap: int | None = None
    square_root: bool = False

    def __post_init__(self) -> None:
        checks = {
            "solver": self.solver in (None, "cg", "gmres"),
            "iterations": self.iterations is None or _whole(self.iterations, 1),
            "rtol": _real(self.rtol) and 0 <= self.rtol < 1,
            "gamma": _real(self.gamma) and self.gamma >= 0,
            "zeta": _real(self.zeta) and self.zeta >= 0,
            "covariance": self.covariance in ("tweedie", "simple"),
            "whiten": isinstance(self.whiten, bool),
            "gaussian_above": self.gaussian_above is None
            or (_real(self.gaussian_above) and self.gaussian_above >= 0),
            "precondition": isinstance(self.precondition, bool),
            "scope": self.scope in ("trajectory", "blanket"),
            "stitching": self.stitching in STITCHINGS,
            "overlap": self.overlap is None or _whole(self.overlap, 0),
            "square_root": isinstance(self.square_root, bool),
        }
        check_settings(
            self,
            checks,
            what="guidance",
            where="guidance=",
            expected="solver 'cg' or 'gmres', a whole number of iterations >= 1, 0 <= rtol "
            "< 1, gamma >= 0, zeta >= 0, covariance 'tweedie' or 'simple', scope "
            f"'trajectory' or 'blanket', stitching one of {', '.join(STITCHINGS)}, a whole "
            "overlap >= 0, gaussian_above >= 0, whiten, precondition and square_root True or False",
        )


def _whole(value: Any, least: int) -> bool:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return whole and bool(value >= least)


def _real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
