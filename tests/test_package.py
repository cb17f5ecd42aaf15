"""The package as a whole: what importing costs, lazy names, the command line, sample data."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xappa
from xappa.__main__ import main
from xappa.errors import ArgumentError, DataError, MissingDependencyError, raise_all

ROOT = Path(xappa.__file__).parent


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_leaves_the_heavy_packages_out() -> None:
    code = "import sys, xappa; print([m for m in ('torch', 'azula', 'pint') if m in sys.modules])"
    assert run(code) == "[]"


def test_importing_costs_little_more_than_xarray() -> None:
    code = (
        "import time; a = time.perf_counter(); import xarray; b = time.perf_counter();"
        "import xappa; c = time.perf_counter(); print((c - a) / (b - a))"
    )
    # The contract is 3; a busy machine slows both imports alike.
    assert min(float(run(code)) for _ in range(3)) < 3


def test_lazy_names_are_typed_and_exist() -> None:
    stub = ast.parse((ROOT / "__init__.pyi").read_text())
    typed = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom)
             for alias in node.names}  # fmt: skip
    assert typed | {"__version__"} == set(xappa.__all__)
    for name in xappa.__all__:
        assert getattr(xappa, name) is not None
        assert name in dir(xappa)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = xappa.nonsense


def test_show_versions(capsys) -> None:
    xappa.show_versions()
    said = capsys.readouterr().out
    assert "xarray: " in said
    assert "torch: " in said


def test_command_line(tmp_path, capsys) -> None:
    ds = xappa.testing.weather(times=40)
    ds.to_netcdf(tmp_path / "weather.nc")
    assert main(["show", str(tmp_path / "weather.nc")]) == 0
    assert "t2m (air_temperature at 2 m, K)" in capsys.readouterr().out
    xappa.fit_gaussian(ds, modes=3).save(tmp_path / "bundle")
    assert main(["show", str(tmp_path / "bundle")]) == 0
    assert "latents     3 for each state of 1 channel" in capsys.readouterr().out
    assert main(["versions"]) == 0


def test_sample_data(monkeypatch, tmp_path) -> None:
    with pytest.raises(ArgumentError, match=r"no sample Dataset 'era6'[\s\S]*era5-uk"):
        xappa.tutorial.open_dataset("era6")
    monkeypatch.setattr("xappa.tutorial._folders", lambda: iter([tmp_path]))
    with pytest.raises(DataError, match="XAPPA_DATA_DIR"):
        xappa.tutorial.open_dataset("era5-tl31")
    xappa.testing.weather(times=4).to_netcdf(tmp_path / "era5_tl31_19590102T00.nc")
    assert xappa.tutorial.open_dataset("era5-tl31").sizes["time"] == 4


def test_optional_packages_name_their_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cfgrib", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'xappa\[cfgrib\]'"):
        xappa.tutorial.open_dataset("era5-uk")


def test_options_nest_and_are_checked() -> None:
    from xappa.options import get_option

    with xappa.set_options(progress=False):
        with xappa.set_options(model="a"):
            assert (get_option("progress"), get_option("model")) == (False, "a")
        assert get_option("model") is None
    with pytest.raises(ArgumentError, match=r"unknown option 'colour'[\s\S]*progress"):
        xappa.set_options(colour=1)


def test_errors_say_what_where_expected_got_remedy() -> None:
    first = ArgumentError("a", where="b", expected="c", got=0, remedy="d")
    assert str(first).splitlines() == ["a", "  where: b", "  expected: c", "  got: 0",
                                       "  remedy: d"]  # fmt: skip
    second = DataError("e")
    raise_all([], "nothing")
    with pytest.raises(ArgumentError, match="a"):
        raise_all([first], "one")
    with pytest.raises(ExceptionGroup, match=r"two problems[\s\S]*- a[\s\S]*- e") as caught:
        raise_all([first, second], "two problems")
    assert caught.value.exceptions == (first, second)


def test_synthetic_weather_is_reproducible() -> None:
    a, b = xappa.testing.weather(times=5), xappa.testing.weather(times=5)
    assert a.identical(b)
    assert np.isfinite(a.t2m).all()
