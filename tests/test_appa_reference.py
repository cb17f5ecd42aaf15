"""The numbers of Appa's own implementation, from arrays that it wrote with random weights.

Each array X comes with X in float64; its tolerance is 20 times the relative difference between the
two that was recorded for it: what two correct float32 implementations may differ by.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from azula.noise import Schedule
from azula.sample import DDIMSampler, DDPMSampler, zABSampler
from torch import Tensor

import xappa
from xappa.diffusion.blankets import BlanketDenoiser, Cut, TrajectoryDenoiser
from xappa.diffusion.guidance import MMPSDenoiser
from xappa.diffusion.krylov import gmres
from xappa.diffusion.linear import Noise
from xappa.diffusion.sampling import LangevinSampler
from xappa.diffusion.schedules import schedule_of
from xappa.diffusion.scoped import BlanketwiseDenoiser, FixedDates
from xappa.models.appa.checkpoint import state_dicts
from xappa.models.appa.keys import autoencoder_keys, renamed, transformer_keys
from xappa.models.appa.model import AppaModel
from xappa.models.appa.normalisation import date_features
from xappa.models.appa.posterior import LatentPosterior
from xappa.nn.autoencoder import SATURATIONS, AutoencoderConfig, ConvAutoencoder
from xappa.nn.transformer import LatentTransformer, TransformerConfig
from xappa.observe import ObservationOperator, read_observations

DEFAULT = Path(__file__).parents[2] / "shared" / "fixtures" / "appa"
FOLDER = Path(os.environ.get("XAPPA_FIXTURES", DEFAULT))

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(
        not (FOLDER / "config.json").is_file(),
        reason=f"no reference arrays in {FOLDER} (XAPPA_FIXTURES)",
    ),
]


@pytest.fixture(autouse=True)
def _one_thread_of_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def config() -> dict:
    return json.loads((FOLDER / "config.json").read_text())


@pytest.fixture(scope="module")
def differences() -> dict:
    return json.loads((FOLDER / "float32_vs_float64.json").read_text())


@pytest.fixture(scope="module")
def model() -> AppaModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xappa.errors.GuessWarning)
        return xappa.open_model(FOLDER / "checkpoint")


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.as_tensor(file[key]) for key in file.files}


@pytest.fixture
def check(differences):
    def compare(found: Tensor, name: str, expected: Tensor, factor: float = 20.0) -> None:
        difference = (found.double() - expected.double()).abs().max()
        relative = float(difference / expected.double().abs().max())
        assert relative <= factor * differences[name][1], f"{name}: {relative:.2e}"

    return compare


def features(dates: Tensor) -> Tensor:
    """Date features of (..., 4) integers [year, month, day, hour], by the library's function."""
    flat = dates.reshape(-1, 4).numpy()
    times = np.array([f"{y:04d}-{m:02d}-{d:02d}T{h:02d}" for y, m, d, h in flat], "datetime64[s]")
    seconds = times.astype(np.int64).astype(float)
    return torch.as_tensor(date_features(seconds, "standard")).reshape(*dates.shape[:-1], 4)


def blanket(x: Tensor, model: AppaModel) -> Tensor:
    return x.unflatten(-1, (-1, model.latent_size))


class Recorded(Schedule):
    """The noise levels that the reference used, by step, as if they were times."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), t


def levels32(model: AppaModel, steps: int) -> Tensor:
    """Noise levels as the reference rounds them: its schedules run in float32."""
    t = torch.linspace(1, 0, steps + 1)
    name, low, high = model.schedule
    if name == "rectified":
        sigma = (t + (1 - t) * low) / (t * (1 / high - 1) + 1)
    elif name == "loglinear":
        sigma = torch.exp(math.log(low) + (math.log(high) - math.log(low)) * t)
    else:
        eps = math.sqrt(low / high) ** 0.5
        logit = torch.logit(t * (1 - 2 * eps) + eps)
        sigma = torch.exp(2 * logit + math.log(low * high) / 2)
    return sigma.double()


def trace_of(sampler, levels: Tensor, x: Tensor) -> Tensor:
    """Run a sampler over recorded noise levels: x at each denoiser call, and the result."""
    kind = type(sampler)
    sampler.__class__ = type(kind.__name__, (kind,), {"timesteps": levels})
    calls: list[Tensor] = []
    hook = sampler.denoiser.register_forward_pre_hook(lambda _, args: calls.append(args[0]))
    found = sampler(x)
    hook.remove()
    return torch.cat([*calls, found]).flatten(1)


# The autoencoder ----------------------------------------------------------------------------------


def test_encode_and_decode(model, check) -> None:
    a, own = arrays("autoencoder"), model.autoencoder
    rows, columns, channels = own.config.latent_shape
    x = a["x"].unflatten(1, own.config.shape).movedim(-1, 1)
    # The latents' own tolerance: where the saturation is flat they differ by more before it.
    unbounded, expected = own.encode_unbounded(x), a["z_before_saturation"]
    if own.config.saturation == "softclip2":
        flat = (1 + (expected / own.config.saturation_bound) ** 2) ** 1.5
        check((unbounded - expected) / flat + expected, "autoencoder/z", expected)
    check(own.saturate(expected).movedim(1, -1).flatten(1, 2), "autoencoder/z", a["z_f64"])
    check(own.encode(x).movedim(1, -1).flatten(1, 2), "autoencoder/z", a["z_f64"])
    z = a["z"].reshape(-1, rows, columns, channels).movedim(-1, 1)
    check(own.decode(z).movedim(1, -1).flatten(1, 2), "autoencoder/x_rec", a["x_rec_f64"])
    std = np.hypot(a["latent_std"].numpy(), own.config.latent_noise)
    np.testing.assert_allclose(model.normalisation.latent_mean, a["latent_mean"], rtol=1e-6)
    np.testing.assert_allclose(model.normalisation.latent_std, std, rtol=1e-6)


@pytest.mark.parametrize("name", ["softclip", "softclip2", "tanh", "asinh", "rmsnorm"])
def test_saturations(name) -> None:
    a = arrays("saturation")
    torch.testing.assert_close(SATURATIONS[name](a["v"], 5.0), a[name], rtol=1e-6, atol=1e-6)


def test_weights_are_written_as_they_were_read(model) -> None:
    found = state_dicts(model)
    dump = next(FOLDER.glob("checkpoint/autoencoders/*/*/latents/*"))
    files = {
        "autoencoder": dump / "ae" / "model.pth",
        "denoiser": next(dump.glob("denoisers/*/*/model_best.pth")),
    }
    for part, path in files.items():
        expected = torch.load(path, weights_only=True)
        assert list(sorted(found[part])) == list(sorted(expected))
        for key, value in expected.items():
            assert torch.equal(found[part][key], value), key


def test_bundle_keeps_the_model(model, tmp_path) -> None:
    again = xappa.open_model(model.save(tmp_path / "bundle"))
    assert again.hash == model.hash
    a = arrays("denoiser")
    x, t = blanket(a["x_t"], model), torch.tensor(0.5)
    dates = features(a["date"])
    torch.testing.assert_close(again.denoiser(x, t, dates).mean, model.denoiser(x, t, dates).mean)


# The denoiser -------------------------------------------------------------------------------------


def test_dates() -> None:
    a = arrays("dates")
    found = features(a["dates"])
    np.testing.assert_allclose(found[:, :2], a["year_progress"], atol=1e-6)
    np.testing.assert_allclose(found[:, 2:], a["local_time_lon0"][:, 0], atol=1e-6)
    blankets = features(a["blanket_dates"])
    flat = torch.cat([blankets[..., :2].flatten(1), blankets[..., 2:].flatten(1)], dim=1)
    np.testing.assert_allclose(flat, a["blanket_condition"], atol=1e-6)


def test_denoiser(model, check) -> None:
    a = arrays("denoiser")
    dates = features(a["date"])
    backbone = model.network(blanket(a["backbone_in"], model), a["backbone_c_noise"], dates)
    check(backbone.flatten(1), "denoiser/backbone_out", a["backbone_out_f64"])
    x_t = blanket(a["x_t"], model)
    out = model.denoiser.at(x_t, a["sigma_t"][:, 0], dates)
    check(out.flatten(1), "denoiser/out", a["out_f64"])
    alone = model.denoiser.at(x_t[:1], torch.tensor([0.7]), dates[:1])
    check(alone.flatten(1), "denoiser/out", a["out_scalar_sigma_0p7"])
    small = BlanketDenoiser(model.network, model.denoiser.schedule, batch=4)
    check(small.at(x_t, a["sigma_t"][:, 0], dates).flatten(1), "denoiser/out", a["out_f64"])


def test_local_windows(model, check) -> None:
    a = arrays("denoiser")
    window = tuple(int(n) for n in a["window_size"])
    local = LatentTransformer(replace(model.network.config, window_size=window)).eval()
    local.load_state_dict(model.network.state_dict())
    x = blanket(a["backbone_in"], model)
    out = local(x, a["backbone_c_noise"], features(a["date"]))
    check(out.flatten(1), "denoiser/backbone_window_out", a["backbone_window_out_f64"])


@pytest.mark.parametrize("name", ["rectified", "loglinear", "loglogit"])
def test_schedules(name) -> None:
    a = arrays("schedules")
    for key, low, high in (("1em3_1e3", 1e-3, 1e3), ("1em2_1e2", 1e-2, 1e2)):
        _, sigma = schedule_of(name, low, high)(a["t_f64"])
        torch.testing.assert_close(sigma, a[f"{name}_{key}_f64"][:, 0], rtol=1e-12, atol=0)


# Samplers -----------------------------------------------------------------------------------------


def dated(model: AppaModel, dates: Tensor) -> FixedDates:
    return FixedDates(BlanketDenoiser(model.network, Recorded()), features(dates))


def levels_with_end(model: AppaModel, recorded: Tensor) -> Tensor:
    _, end = schedule_of(*model.schedule)(torch.zeros(1))
    return torch.cat([recorded.double(), end])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ddim", DDIMSampler),
        ("lms3", lambda d, **k: zABSampler(d, order=3, **k)),
        ("lms1", lambda d, **k: zABSampler(d, order=1, **k)),
    ],
)
def test_deterministic_samplers(model, check, name, kind) -> None:
    a = arrays("samplers")
    sampler = kind(dated(model, a["date"]), silent=True)
    levels = levels_with_end(model, a[f"{name}_sigma"])
    found = trace_of(sampler, levels, blanket(a["x1"], model))
    expected = a[f"{name}_trace_f64"]
    check(found, f"samplers/{name}_trace", expected)
    # The trace's largest values are those of its noisy beginning: the end by itself, too.
    assert (found[-1] - expected[-1]).abs().max() / expected[-1].abs().max() < 1e-4


@pytest.mark.parametrize(("name", "draws"), [("ddpm", 1), ("pc", 2)])
def test_stochastic_samplers(model, name, draws, monkeypatch) -> None:
    a = arrays("samplers_stochastic")
    bank = iter(blanket(a[f"{name}_noise"], model))
    monkeypatch.setattr(torch, "randn_like", lambda x: next(bank)[None].to(x))
    levels = levels_with_end(model, a[f"{name}_sigma"][:: draws + 1 if name == "pc" else 1])
    denoiser = dated(model, a["date"])
    if name == "ddpm":
        sampler = DDPMSampler(denoiser, silent=True)
    else:
        sampler = LangevinSampler(denoiser, corrections=draws, delta=0.1, silent=True)
    found, expected = trace_of(sampler, levels, blanket(a["x1"], model)), a[f"{name}_trace"]
    assert (found - expected).abs().max() / expected.abs().max() < 1e-5
    last = a[f"{name}_last_f64"]
    assert (found[-1] - last).abs().max() / last.abs().max() < 1e-4


@pytest.mark.parametrize("iterations", [1, 2, 3, 5, 12])
def test_gmres(iterations) -> None:
    a = arrays("gmres")
    found = gmres(lambda v: (v @ a["matrix"].mT, v), a["b"], iterations=iterations, rtol=0.0)
    torch.testing.assert_close(found.solution, a[f"x_{iterations}"], rtol=1e-9, atol=1e-9)


# Observations through the decoder -----------------------------------------------------------------


class Observed:
    """What the reference observes: some variables at stations, others where satellites see."""

    def __init__(self, model: AppaModel, config: dict) -> None:
        self.o = arrays("observations")
        stats = {key: self.o[key].numpy() for key in ("latent_mean", "latent_std")}
        self.model = model.with_normalisation(**stats)
        self.length, self.config = config["traj"]["T"], config
        self.stations = torch.nonzero(self.o["stations_variables"])[:, 0]
        self.satellites = torch.nonzero(self.o["satellite_variables"])[:, 0]

    def of_state(self, x: Tensor, t: int) -> Tensor:
        """Observe states (B, point, channel) at time t."""
        begin, end = self.o["satellite_offsets"][t : t + 2].tolist()
        seen = self.o["satellite_index"][begin:end]
        parts = [x[:, self.o["stations_index"]][..., self.stations]]
        parts.append(x[:, seen][..., self.satellites])
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def of_latents(self, z: Tensor, times: range) -> Tensor:
        """Observe latents (B, K, L) of some times."""
        x = self.model.decode_tensor(z.flatten(0, 1)).flatten(2).mT.unflatten(0, z.shape[:2])
        return torch.cat([self.of_state(x[:, k], t) for k, t in enumerate(times)], dim=1)

    def blanket(self, b: int) -> tuple[Tensor, Tensor, range]:
        """Values, variances and times of a blanket."""
        begin, end = self.o["y_by_blanket_offsets"][b : b + 2].tolist()
        start = b * self.config["traj"]["stride"]
        times = range(start, start + self.model.blanket)
        return self.o["y_by_blanket"][begin:end], self.o["cov_by_blanket"][begin:end], times


@pytest.fixture(scope="module")
def observed(model, config) -> Observed:
    return Observed(model, config)


def test_observations_of_the_true_latents(observed, model) -> None:
    o = observed.o
    x = observed.model.decode_tensor(o["z_true"].flatten(1)).flatten(2).mT
    torch.testing.assert_close(x, o["x_true"], rtol=1e-4, atol=1e-4)


def test_derivatives_of_the_decoder(observed, model, check) -> None:
    a = arrays("mmps")
    _, _, times = observed.blanket(0)
    x = blanket(a["x_t"][1:2], model)

    def operator(z: Tensor) -> Tensor:
        return observed.of_latents(z, times)

    check(operator(x)[0], "mmps/A_at_x1", a["A_at_x1_f64"])
    tangent = blanket(a["u"][None], model)
    check(torch.func.jvp(operator, (x,), (tangent,))[1][0], "mmps/jvp_u", a["jvp_u_f64"])
    with torch.enable_grad():
        _, pull = torch.func.vjp(operator, x)
        check(pull(a["w"][None])[0].flatten(1), "mmps/vjp_w", a["vjp_w_f64"])


def krylov(iterations: int) -> dict:
    return {"solver": "gmres", "iterations": iterations, "rtol": 0.0, "whiten": False}


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("covariance", ["", "_notweedie"])
def test_mmps(observed, model, check, iterations, covariance) -> None:
    a = arrays("mmps")
    _, _, times = observed.blanket(0)
    name = f"out_gmres{iterations}{covariance}"
    for row in range(len(a["x_t"])):
        guided = MMPSDenoiser(
            dated(model, a["date"]),
            a["y"],
            lambda z: observed.of_latents(z, times),
            Noise(torch.diag(a["cov_y"]), a["cov_y"]),
            simple=bool(covariance),
            **krylov(iterations),
        )
        out = guided(blanket(a["x_t"][row : row + 1], model), a["sigma_t"][row]).mean
        check(out.flatten(), f"mmps/{name}", a[f"{name}_f64"][row])


# Trajectories -------------------------------------------------------------------------------------


def cut_of(config: dict, model: AppaModel, stitching: str) -> Cut:
    return Cut(config["traj"]["T"], model.blanket, config["traj"]["stride"], stitching)


@pytest.mark.parametrize("stitching", ["symmetrical", "causal", "average"])
def test_trajectories(model, config, check, stitching) -> None:
    a = arrays("trajectory")
    denoiser = TrajectoryDenoiser(
        model.denoiser, features(a["date"])[0], cut_of(config, model, stitching)
    )
    found = denoiser.at(blanket(a["x_t"], model), a["sigma_t"][0]).flatten(1)
    key = "prior_symmetrical" if stitching == "average" else f"prior_{stitching}"
    expected = a.get(f"prior_{stitching}_f64", a[f"prior_{stitching}"])
    check(found, f"trajectory/{key}", expected)


def guided_trajectory(model, config, observed, iterations: int, dates: Tensor):
    """Guide each blanket by its own observations, all blankets in one batch."""
    cut = cut_of(config, model, "symmetrical")
    blankets = [observed.blanket(b) for b in range(len(cut.starts))]

    def operator(z: Tensor) -> Tensor:
        members = z.unflatten(0, (-1, len(blankets)))
        parts = [observed.of_latents(members[:, b], t) for b, (_, _, t) in enumerate(blankets)]
        return pad([part for part in parts]).transpose(0, 1).flatten(0, 1)

    def pad(parts: list[Tensor], value: float = 0.0) -> Tensor:
        size = max(part.shape[-1] for part in parts)
        return torch.stack(
            [torch.nn.functional.pad(p, (0, size - p.shape[-1]), value=value) for p in parts]
        )

    y, variance = pad([y for y, _, _ in blankets]), pad([v for _, v, _ in blankets], 1.0)

    def guide(prior):
        return MMPSDenoiser(
            prior,
            y.repeat(len(prior.dates) // len(blankets), 1),
            operator,
            RowNoise(variance),
            **krylov(iterations),
        )

    base = BlanketDenoiser(model.network, Recorded())
    return BlanketwiseDenoiser(base, features(dates)[0], cut, guide)


class RowNoise:
    """A diagonal error covariance of its own for each row of the batch."""

    def __init__(self, diagonal: Tensor) -> None:
        self.diagonal = diagonal

    def __matmul__(self, v: Tensor) -> Tensor:
        return self.diagonal.repeat(len(v) // len(self.diagonal), 1) * v


@pytest.mark.parametrize("iterations", [1, 3])
def test_guided_trajectories(model, config, observed, check, iterations) -> None:
    a = arrays("trajectory")
    guided = guided_trajectory(model, config, observed, iterations, a["date"])
    out = guided(blanket(a["x_t"][:1], model), a["sigma_t"][0]).mean
    key = f"mmps_gmres{iterations}"
    check(out.flatten(1), f"trajectory/{key}", a[f"{key}_f64"])


@pytest.mark.parametrize("name", ["ddim16", "lms16"])
def test_posterior_samples(model, config, observed, check, name) -> None:
    a = arrays("posterior")
    guided = guided_trajectory(model, config, observed, 1, a["date"])
    sampler = (
        DDIMSampler(guided, silent=True)
        if name == "ddim16"
        else zABSampler(guided, order=3, silent=True)
    )
    found = trace_of(sampler, levels32(model, 16), blanket(a["x1"], model))
    check(found[-1:], f"posterior/{name}", a[f"{name}_f64"])


# The library's own way ----------------------------------------------------------------------------


def labelled(observed: Observed, window: xr.Dataset) -> list[xr.DataArray]:
    """Return the observations as grids with gaps: stations', and satellites', by channel."""
    model, o = observed.model, observed.o
    shape = (2, observed.length, math.prod(model.spec.grid.shape), model.spec.n_channels)
    values, variances = np.full(shape, np.nan), np.ones(shape)
    for b in range(len(o["y_by_blanket_offsets"]) - 1):
        y, variance, times = observed.blanket(b)
        done = 0
        for t in times:
            begin, end = o["satellite_offsets"][t : t + 2].tolist()
            seen = (o["stations_index"], o["satellite_index"][begin:end])
            for k, (points, channels) in enumerate(
                zip(seen, (observed.stations, observed.satellites), strict=True)
            ):
                if len(points.unique()) != len(points):
                    pytest.skip("a point is observed twice, which a grid with gaps cannot hold")
                at = np.ix_([k], [t], points.numpy(), channels.numpy())
                count = len(points) * len(channels)
                own = values[at].shape
                values[at] = y[done : done + count].reshape(own)
                variances[at] = variance[done : done + count].reshape(own)
                done += count
        assert done == len(y)
    arrays = []
    for k in range(2):
        for c, (name, field) in enumerate(window.items()):
            own = values[k, ..., c].reshape(field.shape)
            if np.isfinite(own).any():
                std = field.copy(data=np.sqrt(variances[k, ..., c]).reshape(field.shape))
                arrays.append(field.copy(data=own).rename(name).assign_coords(error_std=std))
    return arrays


@pytest.mark.parametrize("name", ["ddim16", "lms16"])
def test_posterior_samples_from_labelled_observations(model, config, observed, check, name) -> None:
    """The same numbers from DataArrays, through the operator and the posterior that users get."""
    a = arrays("posterior")
    own = observed.model.with_normalisation()
    own.denoiser.schedule = Recorded()
    ends = ["{:04d}-{:02d}-{:02d}T{:02d}".format(*a["date"][0, k].tolist()) for k in (0, -1)]
    window = own.template(*ends)
    assert window.sizes["time"] == observed.length
    specs = read_observations(labelled(observed, window), own.spec)
    seconds = window.time.values.astype("datetime64[s]").astype(float)
    posterior = LatentPosterior(own, ObservationOperator.build(specs, own.spec, seconds), seconds)
    kind = DDIMSampler if name == "ddim16" else zABSampler
    levels = levels32(model, 16)

    class Injected(kind):
        timesteps = levels

        def init(self, shape, **kwargs):
            return blanket(a["x1"], model)

    options = {} if name == "ddim16" else {"order": 3}
    draws = posterior.draw(
        "mmps",
        [0],
        0,
        lambda denoiser: Injected(denoiser, silent=True, **options),
        xappa.Guidance(
            iterations=1, rtol=0.0, whiten=False, overlap=model.blanket - config["traj"]["stride"]
        ),
    )
    check(torch.as_tensor(draws.latents).flatten(1), f"posterior/{name}", a[f"{name}_f64"])


def test_keys_and_shapes_of_the_default_sizes() -> None:
    path = FOLDER / "state_dict_default_sizes.json"
    if not path.is_file():
        pytest.skip(f"no {path.name}")
    sizes = json.loads(path.read_text())
    own = {k: v for k, v in sizes["ae"].items() if k in AutoencoderConfig.__dataclass_fields__}
    encoder = AutoencoderConfig(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in own.items()},
        in_channels=sizes["autoencoder"]["encoder.descent.0.0.weight"][1],
        boundary="periodic-input",
    )
    given = {
        k: v for k, v in sizes["backbone"].items() if k in TransformerConfig.__dataclass_fields__
    }
    given["latent_shape"] = encoder.latent_shape
    # Each place of a patch comes with its channels, and four date features for each state.
    inside = sizes["denoiser_backbone"]["in_proj.weight"][1] // math.prod(given["patch_size"])
    given["blanket_size"] = (inside - encoder.lat_channels) // 4
    network = TransformerConfig(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    )
    assert encoder.latent_shape == tuple(sizes["latent_shape"])
    for part, kind, config, keys in (
        ("autoencoder", ConvAutoencoder, encoder, autoencoder_keys(encoder)),
        ("denoiser_backbone", LatentTransformer, network, transformer_keys(network)),
    ):
        with torch.device("meta"):
            found = renamed(
                dict(kind(config).state_dict()), {ours: theirs for theirs, ours in keys.items()}
            )
        shapes = {key: list(value.shape) for key, value in found.items()}
        assert shapes == sizes[part]
