"""Tests of services as targets, module by module."""
