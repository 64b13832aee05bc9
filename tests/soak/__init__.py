"""A long soak: several daemons on a PostgreSQL cluster, with every fault there is, and an audit at the end.

`python -m tests.soak --help` from the top of the checkout.
"""
