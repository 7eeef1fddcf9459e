"""What is known of models: nobody changes it, and the defaults leave out nothing a request may hold."""

from __future__ import annotations

import attrs
import pytest

from gateway.dialects.capabilities import Capabilities


def test_the_defaults_take_what_most_models_take() -> None:
    most = Capabilities()
    assert most.sampling and most.forced_tools and most.images and most.max_completion_tokens
    assert not most.always_thinks
    assert most.max_output is None


def test_what_a_model_can_take_is_fixed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Capabilities().sampling = False  # type: ignore[misc]


def test_a_difference_leaves_the_rest() -> None:
    thinks = attrs.evolve(Capabilities(), always_thinks=True, efforts=("low", "high"))
    assert (thinks.always_thinks, thinks.efforts, thinks.sampling) == (True, ("low", "high"), True)
