"""Settings of the posterior sampling methods."""

from __future__ import annotations

from dataclasses import dataclass

from xappa.errors import ArgumentError

__all__ = ["METHODS", "Guidance"]

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
    scope
        With a learned prior: whether each ``"blanket"`` is guided by itself before they are
        stitched, or the whole ``"trajectory"`` after, which decodes each state once instead of
        once for each blanket, and is less accurate where states correlate beyond a blanket.
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
    scope: str = "blanket"
    square_root: bool = False

    def __post_init__(self) -> None:
        checks = {
            "solver": self.solver in (None, "cg", "gmres"),
            "iterations": self.iterations is None or self.iterations >= 1,
            "rtol": 0 <= self.rtol < 1,
            "gamma": self.gamma >= 0,
            "zeta": self.zeta >= 0,
            "covariance": self.covariance in ("tweedie", "simple"),
            "scope": self.scope in ("trajectory", "blanket"),
        }
        for name, good in checks.items():
            if not good:
                raise ArgumentError(
                    f"guidance has a bad {name}",
                    where="guidance=",
                    expected="solver 'cg' or 'gmres', iterations >= 1, 0 <= rtol < 1, gamma >= 0, "
                    "zeta >= 0, covariance 'tweedie' or 'simple', scope 'trajectory' or 'blanket'",
                    got=f"{name}={getattr(self, name)!r}",
                )
