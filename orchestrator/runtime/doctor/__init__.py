"""Checks that a machine or a cluster can run sweeps; `jobs.doctor` prints what they find."""
