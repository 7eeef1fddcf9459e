"""Conversions of a piece of YAML, for tests of ``gateway import``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.importing import litellm
from gateway.importing.notes import Notes
from gateway.importing.source import read

pytest.importorskip("yaml")


def converted(text: str, environ: Mapping[str, str] = {}) -> tuple[dict[str, Any], list[str]]:
    """The tables, and what is told as ``x:LINE: message``."""
    notes = Notes()
    document = litellm.convert(read(Path("x"), text), environ, notes)
    return document, notes.told("x")


def deployment(params: str, environ: Mapping[str, str] = {}) -> tuple[dict[str, Any], list[str]]:
    """The one provider of a deployment with these parameters, in YAML's flow style."""
    document, told = converted(f"model_list:\n- model_name: m\n  litellm_params: {{{params}}}\n", environ)
    (provider,) = document["providers"].values()
    return provider, told
