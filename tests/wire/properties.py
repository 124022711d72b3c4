"""How the property tests here run: without time limits, which a busy machine would break."""

from __future__ import annotations

from hypothesis import HealthCheck, settings


def examples(number: int) -> settings:
    """So many examples."""
    return settings(
        deadline=None, max_examples=number, suppress_health_check=[HealthCheck.too_slow]
    )
