"""The catalogue: models that are at hand by name, and the rules by which a task finds its model.

At hand are the bundles that come with xappa, those in the folders of the environment variable
``XAPPA_MODEL_PATH``, and the models that were fitted, trained or opened in this session.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import xarray as xr

from xappa.bridge import Layout
from xappa.errors import ArgumentError, BundleError, NoModelError, XappaError, XappaErrors
from xappa.models.appa.checkpoint import find_checkpoint, open_checkpoint
from xappa.models.base import Model, Prior
from xappa.models.bundle import label_of, load
from xappa.options import get_option

__all__ = ["catalogue", "model_of", "open_model", "prior_of", "remember", "resolve"]

_SESSION: WeakValueDictionary[str, Model] = WeakValueDictionary()
_OPENED: dict[Path, Model] = {}


def remember(model: Model) -> Model:
    """Make a model known to this session, under its hash."""
    _SESSION[model.label] = model
    return model


def catalogue() -> dict[str, Path]:
    """Return the bundles at hand: name to folder."""
    folders = [Path(__file__).with_name("bundled")]
    folders += [Path(p) for p in os.environ.get("XAPPA_MODEL_PATH", "").split(os.pathsep) if p]
    return {
        found.parent.name: found.parent
        for folder in reversed(folders)
        if folder.is_dir()
        for found in sorted(folder.glob("*/model.json"))
    }


def open_model(name: str | Path) -> Model:
    """Open a model by its name in the catalogue or by the path of its bundle.

    Parameters
    ----------
    name
        A name in the catalogue, the path of a folder written by ``model.save``, or that of a
        project of published Appa checkpoints (`xappa.models.appa.checkpoint`), at any depth of it.

    Returns
    -------
    Model
        The model; a bundle that is open already is not read again.

    Raises
    ------
    ArgumentError
        If ``name`` is neither text nor a path.
    BundleError
        If there is neither such a name nor such a folder, or the bundle or checkpoint is damaged.

    Warns
    -----
    GuessWarning
        If a checkpoint lacks the statistics of its states.
    """
    if not isinstance(name, (str, Path)):
        raise ArgumentError(
            "this is neither the name nor the path of a model",
            where="xappa.open_model",
            expected="text or a pathlib.Path",
            got=repr(name),
            remedy="pass the name or the path; a model that is open already is used as it is",
        )
    known = catalogue()
    path = known.get(str(name), Path(name)).resolve()
    if str(name) not in known and not path.is_dir():
        raise BundleError(
            f"there is no model {str(name)!r}",
            where="xappa.open_model",
            expected=f"a name in the catalogue ({', '.join(known) or 'which is empty'}), "
            "or the path of a bundle",
            remedy="fit a model with xappa.fit_gaussian(ds), and keep it with model.save(path)",
        )
    if str(name) in known:
        if path not in _OPENED:
            _OPENED[path] = load(path)
        return remember(_OPENED[path])
    if not (path / "model.json").is_file() and (layout := find_checkpoint(path)) is not None:
        return remember(open_checkpoint(layout))
    return remember(load(path))


def resolve(model: Model | str | Path | None, ds: xr.Dataset) -> tuple[Prior, str]:
    """Find the prior of a task, and put it on the device that the options name.

    In this order: the argument; the attribute ``xappa_model`` of the Dataset, if it names a model
    at hand with that hash; the option ``model``; the only model of the catalogue that fits.

    Parameters
    ----------
    model
        The argument of the task.
    ds
        The Dataset that the model must fit.

    Returns
    -------
    tuple of Model and str
        The model, and how it was found.

    Raises
    ------
    NoModelError
        If none is found, or several fit: lists the candidates and the remedies.
    ArgumentError, BundleError
        If the argument is not a model, or cannot be opened.
    """
    found, how = _found(model, ds)
    return prior_of(found), how


def prior_of(model: Model | str | Path) -> Prior:
    """Return a prior that was given as such, by name or by path, where the options want it.

    Raises
    ------
    ArgumentError, BundleError
        If it is no prior, or cannot be opened.
    """
    found = model_of(model)
    if isinstance(found, Prior):
        return found
    raise ArgumentError(
        f"models of kind {found.kind!r} are no priors",
        where="model=",
        expected="a model that observations can be assimilated into",
        got=found.name,
        remedy="take another one; this one is for ds.appa.downscale(model)",
    )


def model_of(model: Model | str | Path) -> Model:
    """Return a model that was given as such, by name or by path, where the options want it.

    What runs in torch is moved; what does not is spared the import.

    Raises
    ------
    ArgumentError, BundleError
        If it is not a model, or cannot be opened.
    """
    found = _as_model(model)
    if not found.has_networks:
        return found
    from xappa.device import chosen_device

    return found.to(chosen_device())


def _found(model: Model | str | Path | None, ds: xr.Dataset) -> tuple[Model, str]:
    if model is not None:
        return _as_model(model), "argument"
    label = ds.attrs.get("xappa_model")
    if isinstance(label, str) and isinstance(found := _by_label(label), Prior):
        return found, "attribute xappa_model"
    if (option := get_option("model")) is not None:
        return _as_model(option), "xappa.set_options"
    fitting, reasons = _fitting(ds)
    if len(fitting) == 1:
        return next(iter(fitting.values())), "only model of the catalogue that fits"
    raise _no_model(ds, fitting, reasons)


def _no_model(ds: xr.Dataset, fitting: dict[str, Model], reasons: list[str]) -> NoModelError:
    """Return the error that lists what could have been meant, and what to do."""
    what = "several models fit" if fitting else "no model fits"
    listed = [f"{name} (sha256:{model.hash[:16]})" for name, model in fitting.items()] or reasons
    # a model of the session is named, never taken: which one would depend on what ran before
    known = {model.hash for model in fitting.values()}
    session = [m.label for m in list(_SESSION.values()) if m.hash not in known and _fits(ds, m)]
    got = "\n".join(listed) or "the catalogue is empty"
    remedy = (
        "fit one with xappa.fit_gaussian(training_data); open one with xappa.open_model; "
        "start from model.template(start, stop); or bring the data to a model's grid with "
        "ds.appa.regrid_like(model)"
    )
    if fitting:
        remedy = f"choose one by its name: model={next(iter(fitting))!r}; {remedy}"
    if session:
        got += f"; of those fitted or opened in this session: {', '.join(sorted(session))}"
        remedy = f"pass the model that you fitted: ds.appa.assimilate(obs, model); {remedy}"
    return NoModelError(
        f"no model was given, and {what}",
        where="model=None",
        expected="a model, the attribute xappa_model of a model at hand, or set_options(model=...)",
        got=got,
        remedy=remedy,
    )


def _as_model(model: Any) -> Model:
    if isinstance(model, Model):
        return model
    if isinstance(model, (str, Path)):
        return open_model(model)
    raise ArgumentError(
        "model is not a model",
        where="model=",
        expected="a model, its name in the catalogue, or the path of its bundle",
        got=type(model).__name__,
        remedy="pass what xappa.open_model or xappa.fit_gaussian returns",
    )


def _by_label(label: str) -> Model | None:
    """Find a model by name and hash among those at hand; a path in an attribute opens nothing."""
    if label in _SESSION:
        return _SESSION[label]
    for folder, path in catalogue().items():
        try:
            found = label_of(path)
        except BundleError:
            continue  # damaged bundles of other names are no reason to fail
        if found == label:
            return open_model(folder)
    return None


def _fitting(ds: xr.Dataset) -> tuple[dict[str, Model], list[str]]:
    """Return the models of the catalogue that fit, each once, and why the others do not."""
    fitting: dict[str, Model] = {}
    reasons = []
    for name in catalogue():
        try:
            model = open_model(name)
            if not isinstance(model, Prior):
                continue
            Layout.of(ds, model.spec)
        except XappaError as error:
            reasons.append(f"{name}: {_headline(error)}")
        else:
            if all(model.hash != other.hash for other in fitting.values()):
                fitting[name] = model
    return fitting, reasons


def _headline(error: XappaError) -> str:
    """Return the first line of an error, or of the first of several and how many more there are."""
    several = error.exceptions if isinstance(error, XappaErrors) else (error,)
    first = str(several[0]).splitlines()[0]
    more = len(several) - 1
    return f"{first}, and {more} more" if more else first


def _fits(ds: xr.Dataset, model: Model) -> bool:
    try:
        Layout.of(ds, model.spec)
    except XappaError:
        return False
    return True
