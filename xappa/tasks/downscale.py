"""`downscale`: coarse states to an ensemble of fine ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xappa.bridge import Layout, pack
from xappa.bridge.labels import member_coordinate
from xappa.diffusion.noise import seed_of
from xappa.diffusion.sampling import Sampler
from xappa.errors import ArgumentError, DataError, GridMismatchError, NoObservationsWarning, warn
from xappa.grid import Grid
from xappa.models.base import Model
from xappa.models.catalogue import model_of, remember
from xappa.models.corrdiff.draws import drawn, drawn_given, sampler_of
from xappa.models.corrdiff.model import CorrDiffModel
from xappa.models.corrdiff.pairs import lead_seconds
from xappa.models.settings import Guidance
from xappa.observe import ObservationOperator, read_observations
from xappa.progress import progress_bar
from xappa.tasks.arguments import cannot, check_sampling, describe_settings
from xappa.tasks.labels import count, finish, warn_of_guesses
from xappa.tasks.lazy import is_lazy, time_chunks
from xappa.tasks.window import in_calendar, member_numbers

__all__ = ["downscale"]


def downscale(
    ds: xr.Dataset,
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
    """Draw an ensemble of fine states, given coarse ones.

    Each time is drawn by itself: fine fields of consecutive times do not know of each other beyond
    what their coarse states say.

    Parameters
    ----------
    ds
        Coarse states on the model's whole coarse grid, at any times. With a realization dimension
        each member is downscaled by itself. Dask-backed data stay lazy.
    model
        A downscaling model, its name, or a bundle's path.
    members
        Size of the ensemble, by default the members of ``ds``, else 16; a multiple of the members
        of ``ds`` draws each of them several times.
    seed
        Seed of all random numbers; None draws one. Member k of a time is the same numbers whatever
        the number of members, the other times, the chunks or the batch.
    obs
        Observations of the fine states, as for ``assimilate``: the ensemble is then drawn given
        both. For models of rectilinear fine grids.
    error
        Standard deviation of the observation errors, where the metadata do not say it.
    sampler
        How the reverse diffusion is integrated; None takes what the model was calibrated with.
    guidance
        Settings of MMPS, with ``obs``.
    chunks
        Times and members of a block, such as ``{"time": 8, "member": 4}`` ("time" and "member"
        whatever the dimensions are called): the result is then lazy, also for data in memory.
    progress
        Whether to show a progress bar; None follows ``xappa.set_options(progress=...)``.

    Returns
    -------
    xarray.Dataset
        The fine variables, with ``member`` in front (or the realization dimension of ``ds``, where
        it was), the times of ``ds`` with what belongs to them (``init_time``, ``lead_time``), and
        the coordinates of the fine grid. Units are those of the training data.

    Raises
    ------
    ArgumentError
        If ``model`` is no downscaling model, or an argument is not known.
    HandshakeError, UnitsError, CoordinateError
        If ``ds`` does not fit the model's coarse states, or covers a part of their grid only.
    DataError
        If coarse values are missing.
    MembersError
        If ``members`` is not positive, or no multiple of the members of ``ds``.
    ObservationTypeError, UnknownQuantityError, ErrorCovarianceError
        If observations cannot be understood.

    Warns
    -----
    NoObservationsWarning
        If observations were given and none can be used.

    References
    ----------
    Mardani et al. (2025), arXiv:2309.15214.
    """
    own = None if sampler is None else check_sampling(None, sampler, guidance)
    check_sampling(None, sampler, guidance)
    model = _downscaler(model)
    spec = replace(model.spec, time_step=None)
    layout = Layout.of(ds, spec, gaps=True)
    _check_coverage(layout, model)
    numbers = member_numbers(members, layout, multiple=True)
    blocks = _blocks(chunks, ds, layout, len(numbers))
    warn_of_guesses(ds, layout, model)
    seed = seed_of(seed)
    times = _Times.of(layout, model)
    how = own or sampler_of(model)
    given = _given(obs, error, model, times.seconds, guidance)
    packed = pack(ds, spec, layout).data
    if blocks is None:
        bar = progress_bar(progress, "downscale")
        states = _draw(model, np.asarray(packed), times, numbers, seed, how, given, bar)
    else:
        states = _lazily(model, packed, times, numbers, seed, how, given, blocks)
    out = _labelled(model, layout, states)
    remember(model)
    settings = describe_settings(how, guidance or Guidance())
    if given is None:
        del settings["guidance"]
    return finish(
        out,
        replace(layout, fields=()),
        model,
        "downscale",
        seed=seed,
        members=len(numbers),
        settings=settings,
        observations=None if given is None else count(given[0]),
    )


def _downscaler(model: Any) -> CorrDiffModel:
    found = model_of(model)
    if not isinstance(found, CorrDiffModel):
        raise cannot(found, "downscale")
    return found


def _check_coverage(layout: Layout, model: CorrDiffModel) -> None:
    if not layout.is_full_grid:
        raise GridMismatchError(
            "the coarse states cover a part of the model's coarse grid only",
            where="the Dataset's grid",
            expected=repr(model.spec.grid),
            got=f"{layout.rows.size} x {layout.columns.size} of its points",
            remedy="take data of the whole region",
        )


@dataclass(frozen=True, eq=False)
class _Times:
    """Valid times and lead times of the states, seconds, shape (T,)."""

    seconds: np.ndarray
    lead: np.ndarray | None

    @classmethod
    def of(cls, layout: Layout, model: CorrDiffModel) -> _Times:
        return cls(in_calendar(layout, model), lead_seconds(layout))

    def at(self, part: slice) -> _Times:
        return _Times(self.seconds[part], None if self.lead is None else self.lead[part])


Given = tuple[ObservationOperator, Guidance]


def _given(
    obs: Any, error: Any, model: CorrDiffModel, seconds: np.ndarray, guidance: Guidance | None
) -> Given | None:
    """Return the operator of the observations on the fine grid."""
    if obs is None:
        return None
    if not isinstance(model.target.domain, Grid):
        raise ArgumentError(
            "observations of fine states on a curvilinear grid cannot be interpolated to",
            where="obs=",
            expected="a model whose fine grid is rectilinear",
            got=repr(model.target.domain),
            remedy="downscale without observations",
        )
    fine = model.target.spec
    specs = read_observations(obs, fine, error=error)
    operator = ObservationOperator.build(specs, fine, seconds)
    if not operator.n_used:
        warn("no observation can be used: the ensemble knows of none", NoObservationsWarning)
        return None
    return operator, guidance or Guidance()


def _blocks(
    chunks: Mapping[str, int] | None, ds: xr.Dataset, layout: Layout, members: int
) -> tuple[Sequence[int], Sequence[int]] | None:
    """Return the sizes of blocks of members and of times; None to compute at once."""
    if chunks is None:
        return None if not is_lazy(ds) else ((members,), time_chunks(ds, layout))
    unknown = set(chunks) - {"time", "member"}
    sizes = [chunks.get("member", members), chunks.get("time", layout.n_times)]
    if unknown or not all(isinstance(n, (int, np.integer)) and n >= 1 for n in sizes):
        raise ArgumentError(
            "blocks cannot be so",
            where="chunks=",
            expected="a dict of 'time' and 'member' with whole numbers of 1 or more",
            got=repr(dict(chunks)),
            remedy='write for example chunks={"time": 8}',
        )
    return _split(members, int(sizes[0])), _split(layout.n_times, int(sizes[1]))


def _split(count: int, size: int) -> tuple[int, ...]:
    return tuple(min(size, count - first) for first in range(0, count, size))


def _draw(
    model: CorrDiffModel,
    coarse: np.ndarray,
    times: _Times,
    numbers: Sequence[int],
    seed: int,
    sampler: Any,
    given: Given | None,
    bar: Callable[[Any], Any] | None = None,
) -> np.ndarray:
    """Draw fine states (B, T, c, H, W) of coarse ones ([b,] T, C, h, w)."""
    own = coarse.reshape(-1, *coarse.shape[-4:])
    if not np.isfinite(own).all():
        raise DataError(
            "coarse values are missing",
            where="the Dataset's values",
            expected="a value at every point of the coarse grid",
            got=f"{int((~np.isfinite(own)).sum())} missing values",
            remedy="fill them, or select times that are whole",
        )
    if given is None:
        return drawn(model, own, times.seconds, times.lead, numbers, seed, sampler, bar)
    operator, guidance = given
    return drawn_given(
        model, own, times.seconds, times.lead, numbers, seed, sampler, bar, operator, guidance
    )


def _lazily(
    model: CorrDiffModel,
    packed: Any,
    times: _Times,
    numbers: Sequence[int],
    seed: int,
    sampler: Any,
    given: Given | None,
    blocks: tuple[Sequence[int], Sequence[int]],
) -> Any:
    """Do as `_draw` with dask: one task for each block of members and times."""
    import dask
    import dask.array as da
    from dask.base import tokenize

    data = da.asarray(packed)
    key = tokenize(model, data, times.seconds, times.lead, list(numbers), seed, str(sampler), given)
    rows = []
    own = 1 if data.ndim == 4 else data.shape[0]
    for first, last in _edges(blocks[0]):
        # each member goes on from its own coarse state
        states = data if data.ndim == 4 else data[[k % own for k in range(first, last)]]
        parts = []
        for begin, end in _edges(blocks[1]):
            part = slice(begin, end)
            block = dask.delayed(_draw, pure=True)(
                model,
                states[..., part, :, :, :].rechunk(-1),
                times.at(part),
                list(numbers[first:last]),
                seed,
                sampler,
                None if given is None else _of_times(given, part),
                dask_key_name=f"xappa-downscale-{key}-{first}-{begin}",
            )
            shape = (last - first, end - begin, *model.target.spec.shape)
            parts.append(da.from_delayed(block, shape, dtype=np.float32))
        rows.append(da.concatenate(parts, axis=1))
    return da.concatenate(rows, axis=0)


def _edges(sizes: Sequence[int]) -> list[tuple[int, int]]:
    edges = np.concatenate([[0], np.cumsum(sizes)]).astype(int).tolist()
    return list(pairwise(edges))


def _of_times(given: Given, part: slice) -> Given:
    """Return the observations of some times."""
    operator, guidance = given
    times = operator.times[part]
    return ObservationOperator.build(operator.specs, operator.state, times), guidance


def _labelled(model: CorrDiffModel, layout: Layout, states: Any) -> xr.Dataset:
    """Return fine states (B, T, c, H, W) with the labels of their times and of the fine grid."""
    roles, own = layout.roles, layout.template
    member = roles.member or "member"
    dims: tuple[str, ...] = (member,)
    if roles.time is None:
        states = states[:, 0]
    else:
        dims = (member, roles.time)
    kept = {
        name: coord
        for name, coord in own.coords.items()
        if set(coord.dims) <= {roles.time} and name not in model.target.coords.coords
    }
    kept = {n: c for n, c in kept.items() if c.attrs.get("standard_name") not in _OF_PLACES}
    kept = {n: c.variable for n, c in kept.items()}  # an array would bring its own coordinates
    if layout.member_size == states.shape[0] and roles.member in own.coords:
        kept[member] = own[member].variable
    else:
        kept[member] = member_coordinate(member, states.shape[0], None)
    dtype = np.result_type(np.float32, *(np.dtype(field.dtype) for field in layout.fields))
    out = model.target.label(states, dims, kept, dtype)
    out.attrs = {**own.attrs, "Conventions": "CF-1.11"}
    return out


#: Coordinates of coarse states that say nothing of fine ones.
_OF_PLACES = ("height", "air_pressure", "altitude", "latitude", "longitude", "realization")
