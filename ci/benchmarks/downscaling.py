"""Downscaling: CorrDiff beside interpolation, linear regression and the U-Net alone.

    python ci/benchmarks/downscaling.py era5-uk --folder OUT
    python ci/benchmarks/downscaling.py speedy --nature NATURE --folder OUT

*era5-uk*: 2 m temperature, area means of 4 x 4 points, downscaled back; learnt from 1 to 24 March
2019, tested on 25 to 31 March. *speedy*: the nature run of ``python -m xappa nature-run`` from its
own T10 truncation, all variables, precipitation among what comes out and not among what goes in;
tested on the last year.

A model that OUT holds is not trained again, and a training that it holds goes on.
"""

from __future__ import annotations

import argparse
import sys
import time as clock
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.fft
import torch
import xarray as xr

sys.path.insert(0, str(Path(__file__).parent))

from markdown import markdown

import xappa
from xappa.models.corrdiff import CorrDiffModel
from xappa.models.corrdiff.pairs import pairs_of

MEMBERS = 16


@dataclass(frozen=True, eq=False)
class Pair:
    """Coarse and fine states to learn from, and to be tested on."""

    coarse: xr.Dataset
    fine: xr.Dataset
    coarse_test: xr.Dataset
    fine_test: xr.Dataset


def era5_uk(stride: int) -> Pair:
    """Return 2 m temperature of March 2019, and its means over 4 x 4 points."""
    fine = xappa.tutorial.open_dataset("era5-uk")[["t2m"]].load()
    height, width = (fine.sizes[dim] // 4 * 4 for dim in ("latitude", "longitude"))
    centres = {
        dim: fine[dim][:size].coarsen({dim: 4}).mean()
        for dim, size in (("latitude", height), ("longitude", width))
    }
    coarse = fine.appa.regrid_like(xr.Dataset(coords=centres), method="conservative")
    # points between the centres of coarse cells: beyond, interpolation would extrapolate
    inner = fine.isel(latitude=slice(2, height - 2), longitude=slice(2, width - 2))
    learnt, tested = slice(None, "2019-03-24"), slice("2019-03-25", None)
    every = slice(None, None, stride)
    return Pair(
        coarse.sel(time=learnt),
        inner.sel(time=learnt),
        coarse.sel(time=tested).isel(time=every),
        inner.sel(time=tested).isel(time=every),
    )


def truncated(ds: xr.Dataset, wavenumbers: int) -> xr.Dataset:
    """Return fields on a global grid without what is finer than so many zonal wavenumbers.

    Also without as fine structure along meridians: a discrete cosine transform is cut there.
    """

    def cut(x: np.ndarray) -> np.ndarray:
        zonal = np.fft.rfft(x, axis=-1)
        zonal[..., wavenumbers + 1 :] = 0
        x = np.fft.irfft(zonal, n=x.shape[-1], axis=-1)
        along = scipy.fft.dct(x, axis=-2, norm="ortho")
        along[..., wavenumbers + 1 :, :] = 0
        return scipy.fft.idct(along, axis=-2, norm="ortho")

    dims = ["latitude", "longitude"]
    out = {
        name: xr.apply_ufunc(
            cut, ds[name], input_core_dims=[dims], output_core_dims=[dims], keep_attrs=True
        ).astype(np.float32)
        for name in ds.data_vars
    }
    return ds.assign(out).transpose(..., *dims)


def speedy(nature: Path, stride: int) -> Pair:
    """Return the nature run, and its T10 truncation on its own grid, without precipitation."""
    ds = xr.open_zarr(nature)[["u", "v", "t", "q", "sp", "pr", "orog", "lsm"]]
    ds = ds.sel(level=[250.0, 500.0, 850.0])
    moving = [name for name in ds.data_vars if "time" in ds[name].dims]
    last = ds.indexes["time"][-1]
    learnt = ds.sel(time=slice(None, last - pd.Timedelta("370D"))).isel(time=slice(None, None, 2))
    tested = ds.sel(time=slice(last - pd.Timedelta("365D"), None)).isel(
        time=slice(None, None, stride)
    )
    parts = []
    for fine in (learnt.load(), tested.load()):
        parts += [truncated(fine[[n for n in moving if n != "pr"]], 10), fine]
    return Pair(*parts)


# Rivals -------------------------------------------------------------------------------------------


def interpolated(pair: Pair, coarse: xr.Dataset) -> xr.Dataset:
    """Return coarse fields on the fine grid, bilinearly."""
    fine = pair.fine.isel(time=0)
    return coarse.appa.regrid_like(fine[[n for n in fine.data_vars if n in coarse]])


def regression(model: CorrDiffModel, pair: Pair) -> np.ndarray:
    """Return what a linear regression at each point tells of the test times, (T, c, H, W).

    Of each fine channel on the interpolated coarse channels there, with a constant.
    """
    train = pairs_of(pair.coarse, pair.fine, model.spec, model.target)
    test = pairs_of(pair.coarse_test, pair.fine_test, model.spec, model.target)
    size = model.target.spec.grid.size

    def predictors(coarse: Any, seconds: np.ndarray) -> np.ndarray:
        given = model.given(np.asarray(coarse), seconds)
        fields = given.known[:, : model.spec.n_channels].flatten(2).numpy()
        return np.concatenate([fields, np.ones_like(fields[:, :1])], axis=1)

    x, z = predictors(train.coarse, train.seconds), predictors(test.coarse, test.seconds)
    y = np.asarray(train.fine).reshape(len(train), -1, size)
    out = np.empty((len(test), y.shape[1], size), np.float32)
    for point in range(size):
        coefficients = np.linalg.lstsq(x[:, :, point], y[:, :, point], rcond=None)[0]
        out[:, :, point] = z[:, :, point] @ coefficients
    return out.reshape(len(test), *model.target.spec.shape)


def told(model: CorrDiffModel, pair: Pair) -> np.ndarray:
    """Return what the model's U-Net alone tells, (T, c, H, W)."""
    test = pairs_of(pair.coarse_test, pair.fine_test, model.spec, model.target)
    parts = []
    for rows in test.blocks(32):
        given = model.conditions(np.asarray(test.coarse[rows]), test.seconds[rows])
        parts.append(model.scaling.unscaled(given.mean, given.departed).numpy())
    return np.concatenate(parts)


# Scores -------------------------------------------------------------------------------------------


def area(model: CorrDiffModel) -> np.ndarray:
    """Return weights (H, W) of a rectilinear fine grid, of mean 1."""
    weights = np.cos(np.deg2rad(model.target.domain.latitude))[:, None]
    return weights / weights.mean() * np.ones(model.target.spec.grid.shape)


def crps(ensemble: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the fair CRPS (Ferro 2014) by channel, (c,), of (B, T, c, H, W)."""
    count = len(ensemble)
    ordered = np.sort(ensemble, axis=0)
    rank = (2 * np.arange(1, count + 1) - count - 1).reshape(-1, 1, 1, 1, 1)
    apart = 2 * (rank * ordered).sum(0) / (count * (count - 1))
    score = np.abs(ensemble - truth).mean(0) - apart / 2
    return (score * weights).mean((0, 2, 3))


def spectrum(fields: np.ndarray) -> np.ndarray:
    """Return the variance by wavenumber of fields (..., H, W), by cosine transform.

    Denis, Côté & Laprise (2002), doi:10.1175/1520-0493(2002)130<1812:SDOTDA>2.0.CO;2.
    """
    height, width = fields.shape[-2:]
    power = scipy.fft.dctn(fields, axes=(-2, -1), norm="ortho") ** 2
    power = power.reshape(-1, height, width).mean(0) / (height * width)
    k = np.hypot(np.arange(height)[:, None] / height, np.arange(width) / width) * min(height, width)
    number = np.floor(k).astype(int).ravel()
    return np.bincount(number, power.ravel())[1 : min(height, width)]


def report(model: CorrDiffModel, pair: Pair, folder: Path, members: int) -> None:
    """Print the tables."""
    test = pairs_of(pair.coarse_test, pair.fine_test, model.spec, model.target)
    truth, weights = np.asarray(test.fine), area(model)
    began = clock.perf_counter()
    ens = pair.coarse_test.appa.downscale(model, members=members, seed=0, progress=False)
    took = clock.perf_counter() - began
    ensemble = np.stack([
        np.asarray(pairs_of(pair.coarse_test, ens.isel(member=k), model.spec, model.target).fine)
        for k in range(members)
    ])  # fmt: skip
    baseline = np.array(model.scaling.baseline)
    given = model.given(np.asarray(test.coarse), test.seconds)
    bilinear = model.scaling.unscaled(
        -torch.as_tensor(model.scaling.fine_mean / model.scaling.fine_std).float()[:, None, None]
        + torch.zeros_like(given.departed),
        given.departed,
    ).numpy()
    single = {"linear regression": regression(model, pair), "U-Net": told(model, pair)}
    single = {"bilinear": bilinear, **single}
    labels = list(model.target.spec.channel_labels)
    rows = []
    for name, fields in single.items():
        error = (np.abs(fields - truth) * weights).mean((0, 2, 3))
        if name == "bilinear":
            error = np.where(baseline < 0, np.nan, error)
        rows.append({"method": name, **dict(zip(labels, error, strict=True))})
    mean = (np.abs(ensemble.mean(0) - truth) * weights).mean((0, 2, 3))
    rows.append({"method": "CorrDiff, mean", **dict(zip(labels, mean, strict=True))})
    rows.append(
        {
            "method": "CorrDiff, CRPS",
            **dict(zip(labels, crps(ensemble, truth, weights), strict=True)),
        }
    )
    print("\nMAE, or CRPS of the ensemble, in units\n\n" + markdown(pd.DataFrame(rows), 4))
    spread = np.sqrt((ensemble.var(0, ddof=1) * weights).mean((0, 2, 3)) * (members + 1) / members)
    error = np.sqrt((np.square(ensemble.mean(0) - truth) * weights).mean((0, 2, 3)))
    below = (ensemble < truth).sum(0)
    ranks = np.stack(
        [np.bincount(below[:, k].ravel(), minlength=members + 1) for k in range(len(labels))]
    )
    ranks = ranks / ranks.mean(1, keepdims=True)
    table = {
        "spread-skill": spread / error,
        "lowest rank": ranks[:, 0],
        "highest rank": ranks[:, -1],
    }
    print("\nCalibration (ranks over those of a flat histogram)\n\n"
          + markdown(pd.DataFrame({"channel": labels, **table}), 3))  # fmt: skip
    rows = []
    for k, label in enumerate(labels):
        whole = spectrum(truth[:, k])
        bands = np.array_split(np.arange(len(whole)), 4)
        for name, fields in {**single, "CorrDiff": ensemble}.items():
            ratio = spectrum(fields[..., k, :, :]) / whole
            row = {"channel": label, "method": name}
            rows.append(row | {f"{b[0] + 1}-{b[-1] + 1}": ratio[b].mean() for b in bands})
    print("\nVariance over the truth's, by wavenumber\n\n" + markdown(pd.DataFrame(rows), 2))
    rows = []
    shares = (0.001, 0.01, 0.5, 0.99, 0.999)
    for k, label in enumerate(labels):
        for name, fields in {"truth": truth, **single, "CorrDiff": ensemble}.items():
            values = np.quantile(fields[..., k, :, :].ravel(), shares)
            rows.append(
                {"channel": label, "of": name, **dict(zip(map(str, shares), values, strict=True))}
            )
    print("\nQuantiles\n\n" + markdown(pd.DataFrame(rows), 5))
    fields = len(test) * members
    print(f"\n{fields} fields in {took:.0f} s, {took / fields:.3f} s each")
    print(f"calibration: {model.scores.get('calibration')}")
    figure(truth, single, ensemble, labels, folder)


def figure(
    truth: np.ndarray,
    single: dict[str, np.ndarray],
    ensemble: np.ndarray,
    labels: list[str],
    folder: Path,
) -> None:
    """Draw the fields of a time, and spectra."""
    import matplotlib.pyplot as plt

    k, t = 0, len(truth) // 2
    shown = {"truth": truth[t, k], **{n: f[t, k] for n, f in single.items()}}
    shown |= {f"member {b}": ensemble[b, t, k] for b in range(3)}
    _, axes = plt.subplots(2, 4, figsize=(16, 7))
    low, high = truth[t, k].min(), truth[t, k].max()
    for axis, (name, field) in zip(axes.flat, shown.items(), strict=False):
        axis.imshow(field, vmin=low, vmax=high)
        axis.set_title(name)
        axis.axis("off")
    axis = axes.flat[7]
    axis.axis("on")
    for name, fields in {"truth": truth, **single, "CorrDiff": ensemble}.items():
        axis.loglog(spectrum(fields[..., k, :, :]), label=name)
    axis.legend(fontsize=7)
    axis.set_title(f"variance by wavenumber, {labels[k]}")
    plt.tight_layout()
    plt.savefig(folder / "downscaling.png", dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pair", choices=("era5-uk", "speedy"))
    parser.add_argument("--nature", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="of all output")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--mean-steps", type=int, default=300)
    parser.add_argument("--diffusion-steps", type=int, default=1200)
    parser.add_argument("--stride", type=int, default=6, help="of the test times")
    parser.add_argument("--members", type=int, default=MEMBERS)
    parsed = parser.parse_args()
    pair = (
        era5_uk(parsed.stride) if parsed.pair == "era5-uk" else speedy(parsed.nature, parsed.stride)
    )
    parsed.folder.mkdir(parents=True, exist_ok=True)
    path = parsed.folder / "model"
    if not path.exists():
        config = xappa.DownscalingTraining.preset(
            parsed.preset,
            mean_steps=parsed.mean_steps,
            diffusion_steps=parsed.diffusion_steps,
            precision="bf16",
            checkpoint_every=200,
        )
        began = clock.perf_counter()
        model = xappa.train_downscaler(
            pair.coarse, pair.fine, config, folder=parsed.folder / "run", name=parsed.pair
        )
        print(f"trained in {clock.perf_counter() - began:.0f} s")
        model.save(path)
    model = xappa.open_model(path)
    print(model)
    report(model, pair, parsed.folder, parsed.members)


if __name__ == "__main__":
    main()
