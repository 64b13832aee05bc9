"""Measures this project beside its limits and its peers, and verifies the effects in the database after every run.

    python -m benchmarks --quick

Contenders are programs (`programs/`, `bullmq/`) that are started, told to go, and watched from here; `contenders` lists
them with their settings, `workloads` is what they are given to do, `report` is what is written about it. Only the
standard library is imported here: some programs run in an environment without this project's dependencies.
"""
