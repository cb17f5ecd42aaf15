r"""CorrDiff: a U-Net tells the conditional mean of fine fields, a diffusion model what it leaves.

Of fine fields y and coarse ones x, brought to the fine grid, with static fields g,

.. math:: \hat y = \mu(x, g) + \rho \, r, \qquad r \sim p(r \mid \mu, x, g),

in standardised numbers (`xappa.models.corrdiff.scaling`). The residual is small where the
regression is good, so that the diffusion model spends itself on what is uncertain. It is drawn by
the second-order sampler of Karras et al. (2022), for each member and time by itself.

References
----------
Mardani et al. (2025), Residual corrective diffusion modeling for km-scale atmospheric downscaling,
arXiv:2309.15214.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import azula.sample
import numpy as np
import torch
import xarray as xr
from azula.denoise import Denoiser
from torch import Tensor

from xappa.bridge import StateSpec
from xappa.diffusion.edm import EDMDenoiser
from xappa.diffusion.patches import PatchedDenoiser, Patches
from xappa.diffusion.sampling import draw_fields
from xappa.errors import GridMismatchError
from xappa.models.base import Model
from xappa.models.corrdiff.conditions import Conditions, Cutting, labels_of
from xappa.models.corrdiff.expected import expected_residual
from xappa.models.corrdiff.scaling import SIGMA_DATA, Scaling
from xappa.models.corrdiff.target import Target
from xappa.nn.unet import UNet
from xappa.regrid import Regridder

if TYPE_CHECKING:
    from xappa.regrid.tensors import RegridOperator

__all__ = ["CorrDiffModel"]


class CorrDiffModel(Model):
    """A downscaling model.

    Parameters
    ----------
    spec
        Variables and grid of the coarse states.
    target
        Variables and grid of the fine ones.
    statics
        Static fields on the fine grid.
    regression
        The network of the mean.
    network
        The network of the diffusion model.
    scaling
        How fields are standardised.
    label_parts
        What networks are told of times, see `labels_of`.
    cutting
        How domains are cut into patches; None for whole ones.
    sampling
        Options of `xappa.diffusion.edm_sampler.EDMSampler` that calibration chose.
    **labels
        ``name``, ``provenance`` and ``scores``, see `Model`.
    """

    kind = "corrdiff"
    has_networks = True

    def __init__(
        self,
        spec: StateSpec,
        target: Target,
        statics: xr.Dataset,
        regression: UNet,
        network: UNet,
        scaling: Scaling,
        *,
        label_parts: Sequence[str] = ("year", "day"),
        cutting: Cutting | None = None,
        sampling: Mapping[str, Any] | None = None,
        **labels: Any,
    ) -> None:
        super().__init__(spec, **labels)
        self.target, self.statics = target, statics
        self.regression = regression.eval().requires_grad_(False)
        self.network = network.eval().requires_grad_(False)
        self.scaling, self.label_parts = scaling, tuple(label_parts)
        self.cutting, self.sampling = cutting, dict(sampling or {})

    # Parts ----------------------------------------------------------------------------------------

    @cached_property
    def regridder(self) -> Regridder:
        """What brings coarse fields to the fine grid."""
        return Regridder.build(self.spec.grid, self.target.domain, "bilinear")

    def check(self) -> None:
        """Check that the parts fit each other, before anything is computed.

        Raises
        ------
        GridMismatchError
            If the coarse grid does not cover the fine one.
        ArgumentError
            If patches do not fit the fine grid.
        """
        absent = ~self.regridder.covered
        if absent.any():
            raise GridMismatchError(
                f"the coarse grid does not cover the fine one: {int(absent.sum())} of "
                f"{absent.size} points lie outside",
                where="coarse",
                expected=f"a grid around {self.target.domain!r}",
                got=repr(self.spec.grid),
                remedy="take coarse data of a larger region, or a part of the fine grid",
            )
        _ = self.patches

    @cached_property
    def _regrid(self) -> RegridOperator:
        return self.regridder.operator()

    @cached_property
    def denoiser(self) -> EDMDenoiser:
        """The denoiser of residuals, of fields or of patches; an azula `Denoiser`."""
        return EDMDenoiser(self.network, sigma_data=SIGMA_DATA)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.network.parameters()).device

    def to(self, device: torch.device) -> CorrDiffModel:
        """Move the networks to a device, and return the model."""
        self.regression.to(device)
        self.network.to(device)
        return self

    def calibrated(
        self, coarse: xr.Dataset, fine: xr.Dataset, *, members: int = 8, seed: int = 0
    ) -> CorrDiffModel:
        """Return the model with residuals scaled so that ensembles are as wide as their errors.

        The networks are shared; the scale of each channel, and the spread-skill ratios before and
        after, are kept in ``scores["calibration"]``.

        Parameters
        ----------
        coarse, fine
            States that the model was not trained on, a few dozen or more; the times of both.
        members
            Size of the ensembles that are drawn.
        seed
            Seed.

        Raises
        ------
        HandshakeError, UnitsError, CoordinateError
            If they do not fit the model.
        DataError
            If they have no times in common, or values are missing.
        """
        from xappa.models.corrdiff.calibration import calibrated

        return calibrated(self, coarse, fine, members, seed)

    def replaced(self, **changes: Any) -> CorrDiffModel:
        """Return the model with other ``scaling``, ``sampling``, ``name``, ``scores`` and so on."""
        own: dict[str, Any] = {
            **{"label_parts": self.label_parts, "cutting": self.cutting, "sampling": self.sampling},
            **{"name": self.name, "provenance": self.provenance, "scores": self.scores},
            **{"regression": self.regression, "network": self.network, "scaling": self.scaling},
        }
        return CorrDiffModel(self.spec, self.target, self.statics, **{**own, **changes})

    # What is known --------------------------------------------------------------------------------

    def conditions(
        self, coarse: np.ndarray, seconds: np.ndarray, lead: np.ndarray | None = None
    ) -> Conditions:
        """Return what is known of fields, the regression's mean among it.

        Parameters
        ----------
        coarse
            Packed coarse states, shape (N, C, h, w).
        seconds, lead
            Valid times and lead times in seconds, shape (N,).
        """
        with torch.no_grad():
            given = self.given(coarse, seconds, lead)
            given = replace(given, mean=self.told(given, self.regression))
            if np.all(self.scaling.spread == 1):
                return given
            return replace(given, centre=expected_residual(self.prior(given), given))

    def given(
        self, coarse: np.ndarray, seconds: np.ndarray, lead: np.ndarray | None = None
    ) -> Conditions:
        """Return what is known without the regression."""
        x = torch.as_tensor(coarse).float().to(self.device)
        fields = self._regrid(x)
        parts = [self.scaling.coarse(fields)]
        if self.statics.data_vars:
            parts.append(self._static.expand(len(x), -1, -1, -1))
        labels = labels_of(seconds, lead, self.spec.calendar, self.label_parts)
        return Conditions(
            self.scaling.departed(fields),
            torch.cat(parts, dim=1),
            torch.as_tensor(labels).to(self.device),
        )

    @property
    def _static(self) -> Tensor:
        values = np.stack([field.values for field in self.statics.data_vars.values()])
        return self.scaling.statics(torch.as_tensor(values).float().to(self.device))

    def told(self, given: Conditions, regression: torch.nn.Module) -> Tensor:
        """Return the standardised mean that a regression tells, shape (N, c, H, W)."""
        cut = self.patches
        if cut is None:
            mean: Tensor = regression(given.known, labels=given.labels)
            return mean
        whole, overview = cut.continued(given.known), cut.overview(given.known)
        parts = []
        for which in torch.arange(len(given.known) * len(cut)).split(self._rows):
            field, patch = which // len(cut), which % len(cut)
            x = torch.cat([cut.taken(whole, which), overview[field]], dim=1)
            place = cut.positions[patch].to(x)
            parts.append(regression(x, labels=given.labels[field], positions=place))
        return cut.fuse(torch.cat(parts))

    @cached_property
    def patches(self) -> Patches | None:
        """How the fine domain is cut; None where it is taken as a whole."""
        if self.cutting is None:
            return None
        shape = (self.target.spec.grid.shape[0], self.target.spec.grid.shape[1])
        return self.cutting.patches(shape, self.network.stride, self.target.is_periodic)

    @property
    def _rows(self) -> int:
        """How many fields, or patches, go through a network at a time."""
        return self.batch_size(1)

    def batch_size(self, most: int | None = None) -> int:
        """Return how many fields, or patches, fit into memory at a time."""
        from xappa.device import memory_budget, most_rows

        shape = self.target.spec.grid.shape if self.cutting is None else self.cutting.size
        each = max(1, self.network.config.activation_bytes(*shape) // 4)  # without gradients
        return max(1, min(most_rows(self.device), memory_budget(self.device) // each))

    # Draws ----------------------------------------------------------------------------------------

    def draw(
        self,
        conditions: Conditions,
        members: Sequence[int],
        seconds: Sequence[float],
        seed: int,
        sampler: Callable[[Denoiser], azula.sample.Sampler],
        progress: Callable[[Any], Any] | None = None,
    ) -> Tensor:
        """Draw fine fields in their units.

        Parameters
        ----------
        conditions
            What is known of each of N fields.
        members, seconds
            Member and valid time of each, shape (N,): the key of its random numbers.
        seed
            Seed.
        sampler
            From a denoiser to azula's sampler.
        progress
            Wraps the iterable of steps.

        Returns
        -------
        Tensor
            Shape (N, c, H, W), on the CPU.
        """
        shape = conditions.departed.shape[1:]
        drawn = draw_fields(
            sampler(self.prior(conditions)),
            shape,
            seed=seed,
            members=members,
            times=seconds,
            like=conditions.departed,
            progress=progress,
            purpose="downscale",
            condition=conditions.condition,
            labels=conditions.labels,
        )
        return self.fields(drawn, conditions).cpu()

    def prior(self, conditions: Conditions) -> Denoiser:
        """Return the denoiser of residuals of the whole domain."""
        if self.patches is None:
            return self.denoiser
        return PatchedDenoiser(self.denoiser, self.patches, batch=self._rows)

    def fields(self, residual: Tensor, conditions: Conditions) -> Tensor:
        """Return fine fields in their units of residuals (N, c, H, W), differentiably."""
        if conditions.mean is None:
            raise ValueError("the regression has not run")
        if conditions.centre is not None:
            residual = self.scaling.widened(residual, conditions.centre)
        standardised = conditions.mean + self.scaling.residual_scale(residual) * residual
        return self.scaling.unscaled(standardised, conditions.departed)

    # The bundle -----------------------------------------------------------------------------------

    @property
    def parameter_counts(self) -> dict[str, int]:
        """Number of trained parameters of each part."""
        return {
            "regression": sum(p.numel() for p in self.regression.parameters()),
            "diffusion": sum(p.numel() for p in self.network.parameters()),
        }

    @property
    def description(self) -> tuple[tuple[str, str], ...]:
        """What is downscaled to; see `Model.description`."""
        variables = "\n".join(str(variable) for variable in self.target.spec.variables)
        cut = "none" if self.cutting is None else f"{self.cutting.size[0]} x {self.cutting.size[1]}"
        statics = ", ".join(map(str, self.statics.data_vars)) or "none"
        return (
            ("downscaled to", variables),
            ("fine grid", repr(self.target.domain)),
            ("static fields", statics),
            ("patches", cut),
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """What besides the arrays is needed to build the model again."""
        return {
            "target": self.target.to_dict(),
            "regression": asdict(self.regression.config),
            "network": asdict(self.network.config),
            "transforms": list(self.scaling.transforms),
            "baseline": list(self.scaling.baseline),
            "label_parts": list(self.label_parts),
            "cutting": None if self.cutting is None else asdict(self.cutting),
            "sampling": self.sampling,
        }

    @property
    def weights(self) -> dict[str, np.ndarray]:
        """The arrays of the bundle."""
        parts = {"regression": self.regression, "diffusion": self.network}
        networks = {
            f"{part}.{key}": value.cpu().numpy()
            for part, module in parts.items()
            for key, value in module.state_dict().items()
        }
        static = {f"static.{name}": f.values for name, f in self.statics.data_vars.items()}
        where = {
            f"fine.{role}": np.asarray(getattr(self.target.domain, role))
            for role in ("latitude", "longitude")
        }
        return {**networks, **self.scaling.arrays, **static, **where}

    @property
    def statistics(self) -> xr.Dataset:
        """The static fields, with the coordinates of the fine grid."""
        return self.statics.assign_coords(self.target.coords.coords)

    @classmethod
    def rebuild(
        cls,
        spec: StateSpec,
        arguments: Mapping[str, Any],
        weights: Mapping[str, np.ndarray],
        statistics: xr.Dataset,
        **labels: Any,
    ) -> CorrDiffModel:
        """Build the model from what a bundle holds."""
        from xappa.models.corrdiff.rebuild import parts_of

        parts, kept = parts_of(arguments, weights, statistics)
        target, statics, regression, network, scaling = parts
        return cls(spec, target, statics, regression, network, scaling, **{**kept, **labels})
