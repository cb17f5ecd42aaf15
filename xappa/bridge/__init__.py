"""The bridge between labelled Datasets and arrays of states."""

from __future__ import annotations

from xappa.bridge.layout import Field, Layout
from xappa.bridge.orography import find_orography
from xappa.bridge.packing import pack, unpack
from xappa.bridge.recognise import Roles, describe
from xappa.bridge.spec import StateSpec, VariableSpec

__all__ = [
    "Field",
    "Layout",
    "Roles",
    "StateSpec",
    "VariableSpec",
    "describe",
    "find_orography",
    "pack",
    "unpack",
]
