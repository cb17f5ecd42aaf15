"""The weights as a map of tensors: its adjoint, its gradients, and the xarray path."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from test_regrid import COARSE, FINE, INSIDE_UK, UK, _on
from test_regrid_targets import rotated, stations

from xappa.errors import ArgumentError
from xappa.grid import Grid
from xappa.regrid import Places, Regridder
from xappa.regrid.tensors import RegridOperator

CASES = [
    (FINE, COARSE, "conservative"),
    (COARSE, FINE, "bilinear"),
    (FINE, rotated(), "bilinear"),
    (FINE, stations(), "bilinear"),
    (UK, rotated((6, 7), 8.0, 54.0), "bilinear"),  # partly outside
    (UK, Grid(np.arange(48.5, 60), np.arange(-12.5, 4)), "conservative"),
]


@pytest.fixture(params=["compressed", "entries"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to multiply: the second one is for devices without compressed rows."""
    if request.param == "entries":
        monkeypatch.setattr("xappa.regrid.tensors._COMPRESSED", ())


def _normal(*shape: int, seed: int = 0, requires_grad: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    return x.requires_grad_(requires_grad)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(("source", "target", "method"), CASES)
def test_it_equals_the_xarray_path(source: Grid, target: Any, method: str) -> None:
    regridder = Regridder.build(source, target, method)
    x = _normal(2, 3, *source.shape)
    x[0, 0, 5, 7] = torch.nan
    da = xr.DataArray(x.numpy(), _on(source, np.ones((1, 1))).coords, ("a", "b", "lat", "lon"))
    out = regridder.operator()(x)
    assert out.shape == (2, 3, *regridder.target.shape)
    np.testing.assert_allclose(out.numpy(), regridder(da).values, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(("source", "target", "method"), CASES)
def test_the_adjoint_is_exact(source: Grid, target: Any, method: str) -> None:
    regridder = Regridder.build(source, target, method)
    operator = regridder.operator()
    x = _normal(4, *source.shape, requires_grad=True)
    y = _normal(4, *regridder.target.shape, seed=1)
    out = operator(x)
    covered = torch.from_numpy(regridder.covered)
    left = (out * y)[:, covered].sum()
    assert left.item() == pytest.approx((x * operator.adjoint(y)).sum().item(), rel=1e-12)
    # uncovered targets take part in nothing, whatever is there
    y[:, ~covered] = torch.nan
    (vjp,) = torch.autograd.grad(out, x, y)
    torch.testing.assert_close(vjp, operator.adjoint(y), rtol=0, atol=1e-13)
    assert vjp.isfinite().all()
    dense = torch.from_numpy(regridder.weights.toarray())[covered.ravel()]
    by_hand = (y.flatten(1)[:, covered.ravel()] @ dense).reshape(x.shape)
    torch.testing.assert_close(vjp, by_hand, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("path")
def test_gradients_of_all_kinds() -> None:
    small = Grid(np.linspace(80, -80, 5), np.arange(0, 360, 60.0))
    operator = Regridder.build(small, stations(7)).operator()
    x = _normal(2, *small.shape, requires_grad=True)
    y = _normal(2, 7, requires_grad=True)
    assert torch.autograd.gradcheck(operator, x)
    assert torch.autograd.gradcheck(operator.adjoint, y)
    assert torch.autograd.gradgradcheck(lambda x: operator(x) ** 2, x)
    jacobian = torch.func.jacrev(operator)(x[0].detach())
    torch.testing.assert_close(jacobian, torch.func.jacfwd(operator)(x[0].detach()))
    weights = torch.from_numpy(Regridder.build(small, stations(7)).weights.toarray())
    torch.testing.assert_close(jacobian.reshape(7, -1), weights)
    batched = torch.vmap(operator, in_dims=1)(x.movedim(0, 1))
    torch.testing.assert_close(batched, operator(x))


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # a few units in the last place
    [("float16", 2e-3), ("bfloat16", 2e-2), ("float32", 1e-6), ("complex128", 1e-14)],
)
def test_dtypes_come_back(dtype: str, tolerance: float) -> None:
    operator = Regridder.build(FINE, COARSE, "conservative").operator()
    x = _normal(*FINE.shape)
    kind = getattr(torch, dtype)
    out = operator(x.to(kind))
    assert out.dtype == kind
    torch.testing.assert_close(out.to(torch.complex128), operator(x) + 0j, rtol=0, atol=tolerance)
    assert operator.adjoint(out).dtype == kind
    leaf = x.to(kind).requires_grad_()
    operator(leaf).abs().sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype == kind


def test_missing_values_spread_only_where_weights_touch_them() -> None:
    regridder = Regridder.build(UK, INSIDE_UK)
    x = torch.ones(UK.shape, dtype=torch.float64)
    x[10, 10] = torch.nan
    touched = regridder.weights[:, [10 * 49 + 10]].toarray().reshape(INSIDE_UK.shape) > 0
    out = regridder.operator()(x)
    np.testing.assert_array_equal(out.isnan().numpy(), touched)
    assert touched.any()


def test_batches_of_any_shape() -> None:
    operator = Regridder.build(UK, Places([51.0, 52.0], [0.0, 1.0])).operator()
    assert operator(torch.ones(UK.shape)).shape == (2,)
    assert operator(torch.ones(0, 3, *UK.shape)).shape == (0, 3, 2)
    assert operator.adjoint(torch.ones(5, 2)).shape == (5, *UK.shape)
    # the dimensions need not be contiguous
    x = _normal(*UK.shape[::-1], 3).permute(2, 1, 0)
    torch.testing.assert_close(operator(x), operator(x.contiguous()))
    same = pickle.loads(pickle.dumps(operator))
    torch.testing.assert_close(same(x), operator(x))
    assert repr(operator) == "RegridOperator (33, 49) -> (2,), 2 weights"
    assert isinstance(same, RegridOperator)


def test_tensors_that_do_not_fit() -> None:
    operator = Regridder.build(UK, INSIDE_UK).operator()
    for bad in (torch.ones(49, 33), torch.ones(33), torch.ones(UK.shape, dtype=torch.int64)):
        with pytest.raises(ArgumentError, match=r"shape \(\.\.\., 33, 49\)[\s\S]*got: torch"):
            operator(bad)
    with pytest.raises(ArgumentError, match="where: y"):
        operator.adjoint(torch.ones(UK.shape))


@pytest.mark.gpu
def test_on_an_accelerator() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    operator = Regridder.build(FINE, COARSE, "conservative").operator()
    x = _normal(3, *FINE.shape)
    for kind, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)):
        there = operator(x.to("cuda", kind))
        torch.testing.assert_close(there.cpu().double(), operator(x), rtol=0, atol=tolerance)
        back = operator.adjoint(there)
        assert back.device.type == "cuda"
