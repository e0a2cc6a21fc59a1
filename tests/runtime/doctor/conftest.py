"""Fixtures of the doctor's tests."""

from tests.runtime.doctor.faults import quiet

__all__ = ["quiet"]
