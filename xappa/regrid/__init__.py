"""Regridding on the sphere: sparse weights, built once and applied many times."""

from __future__ import annotations

from xappa.regrid.apply import apply_weights, can_average
from xappa.regrid.domains import Curvilinear, Domain, Places, agree, domain_of
from xappa.regrid.regridder import Regridder
from xappa.regrid.weights import bilinear_weights, conservative_weights

__all__ = [
    "Curvilinear",
    "Domain",
    "Places",
    "Regridder",
    "agree",
    "apply_weights",
    "bilinear_weights",
    "can_average",
    "conservative_weights",
    "domain_of",
]
