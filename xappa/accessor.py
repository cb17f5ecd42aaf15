"""The accessor ``.appa``: explicit signatures that delegate to the tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import xarray as xr

if TYPE_CHECKING:
    from xappa.diffusion.sampling import Sampler
    from xappa.models.base import Model
    from xappa.models.settings import Guidance
    from xappa.observe import ObservationOperator
    from xappa.regrid import Regridder
    from xappa.tasks.quality import QualityControl

__all__ = ["AppaAccessor"]


@xr.register_dataset_accessor("appa")  # type: ignore[no-untyped-call]
class AppaAccessor:
    """Generative data assimilation on a Dataset; printing it says what was recognised.

    Parameters
    ----------
    ds
        The Dataset.

    Examples
    --------
    >>> import xappa
    >>> print(xappa.testing.weather(times=8).appa)  # doctest: +ELLIPSIS
    <xappa on a Dataset>
        time       time, 8 states every 6 hours...
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._obj = ds

    def __repr__(self) -> str:
        from xappa.tasks.report import text

        return text(self._obj)

    def _repr_html_(self) -> str:
        from xappa.tasks.report import html

        return html(self._obj)

    def assimilate(
        self,
        obs: Any,
        model: Model | str | Path | None = None,
        *,
        members: int | None = None,
        seed: int | None = None,
        method: str | None = None,
        error: Any = None,
        background_error: Any = None,
        background_error_scale: float | Mapping[str, float] | None = None,
        sampler: Sampler | Callable[[Any], Any] | None = None,
        guidance: Guidance | None = None,
        quality_control: QualityControl | None = None,
        departures: str | Path | None = None,
        progress: bool | None = None,
    ) -> xr.Dataset:
        """Draw an ensemble from the posterior of the state given observations.

        The Dataset gives the window (its times), the grid and the labels. Its values are the
        background, used only with a background error; otherwise they may be NaN.

        Parameters
        ----------
        obs
            A DataArray, a Dataset, or a list or dict of them; CF metadata define the operator.
        model
            The prior: a model, its name or its path; None takes the one that fits.
        members
            Size of the ensemble; by default that of a background ensemble, else 16.
        seed
            Seed of all random numbers; None draws one, which is recorded.
        method
            ``"exact"``, ``"mmps"``, ``"jfps"``, ``"sda"`` or ``"dps"``; None for the model's own.
        error
            Standard deviation of the observation errors where the metadata do not say it.
        background_error
            Standard deviation of the background's error, in the variables' units.
        background_error_scale
            The same in multiples of the climatological standard deviation.
        sampler
            A `xappa.Sampler`, its name, or a function from an azula denoiser to an azula sampler.
        guidance
            A `xappa.Guidance`.
        quality_control
            A `xappa.QualityControl`: rejects observations that do not agree with the others and
            with the prior, or weighs them down; None trusts all.
        departures
            Where to write what `departures` returns, as a NetCDF file.
        progress
            Whether to show a progress bar.

        Returns
        -------
        xarray.Dataset
            The ensemble, labelled as the Dataset.

        See Also
        --------
        xappa.tasks.assimilate.assimilate : says more, with all that is raised and references.
        """
        from xappa.tasks.assimilate import assimilate

        return assimilate(
            self._obj,
            obs,
            model,
            members=members,
            seed=seed,
            method=method,
            error=error,
            background_error=background_error,
            background_error_scale=background_error_scale,
            sampler=sampler,
            guidance=guidance,
            quality_control=quality_control,
            departures=departures,
            progress=progress,
        )

    def departures(
        self,
        obs: Any,
        background: xr.Dataset | None = None,
        *,
        model: Model | str | Path | None = None,
        error: Any = None,
    ) -> xr.Dataset:
        """Compare the analysis with observations, and say what became of each of them.

        See `xappa.tasks.departures.departures`.
        """
        from xappa.tasks.departures import departures

        return departures(self._obj, obs, background, model=model, error=error)

    def operator(
        self, obs: Any, *, model: Model | str | Path | None = None, error: Any = None
    ) -> ObservationOperator:
        """Return the observation operator that the metadata of ``obs`` define.

        See `xappa.tasks.observe.observation_operator`.
        """
        from xappa.tasks.observe import observation_operator

        return observation_operator(self._obj, obs, model=model, error=error)

    def observe(self, network: Any, *, seed: int | None = None, error: Any = None) -> Any:
        """Simulate the observations that a network would make of the Dataset, with their noise.

        See `xappa.tasks.observe.observe`.
        """
        from xappa.tasks.observe import observe

        return observe(self._obj, network, seed=seed, error=error)

    def encode(self, model: Model | str | Path | None = None) -> xr.Dataset:
        """Encode the states to latents; see `xappa.tasks.encode.encode`."""
        from xappa.tasks.encode import encode

        return encode(self._obj, model)

    def decode(self, model: Model | str | Path | None = None) -> xr.Dataset:
        """Decode latents to states; see `xappa.tasks.encode.decode`."""
        from xappa.tasks.encode import decode

        return decode(self._obj, model)

    def forecast(
        self,
        model: Model | str | Path | None = None,
        *,
        lead: Any,
        members: int | None = None,
        seed: int | None = None,
        preds_per_step: int | None = None,
        sampler: Sampler | Callable[[Any], Any] | None = None,
        guidance: Guidance | None = None,
        progress: bool | None = None,
    ) -> xr.Dataset:
        """Draw an ensemble of what follows the last states; see `xappa.tasks.forecast.forecast`."""
        from xappa.tasks.forecast import forecast

        return forecast(
            self._obj,
            model,
            lead=lead,
            members=members,
            seed=seed,
            preds_per_step=preds_per_step,
            sampler=sampler,
            guidance=guidance,
            progress=progress,
        )

    def regrid_like(
        self,
        model: Model | str | Path | xr.Dataset | xr.DataArray,
        *,
        method: str | Regridder = "bilinear",
        skipna: bool = False,
        outside: Literal["raise", "nan"] = "raise",
    ) -> xr.Dataset:
        """Bring the Dataset to the grid and levels of a model, or of another Dataset.

        See `xappa.tasks.regrid.regrid_like`.
        """
        from xappa.tasks.regrid import regrid_like

        return regrid_like(self._obj, model, method=method, skipna=skipna, outside=outside)

    def downscale(
        self,
        model: Model | str | Path,
        *,
        members: int | None = None,
        seed: int | None = None,
        obs: Any = None,
        error: Any = None,
        sampler: Sampler | Callable[[Any], Any] | None = None,
        guidance: Guidance | None = None,
        chunks: Mapping[str, int] | None = None,
        progress: bool | None = None,
    ) -> xr.Dataset:
        """Draw an ensemble of fine states; see `xappa.tasks.downscale.downscale`."""
        from xappa.tasks.downscale import downscale

        return downscale(
            self._obj,
            model,
            members=members,
            seed=seed,
            obs=obs,
            error=error,
            sampler=sampler,
            guidance=guidance,
            chunks=chunks,
            progress=progress,
        )
