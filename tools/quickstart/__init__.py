"""Starts a real Airflow on this machine, runs the example sweeps, and prints their leaderboards.

Run by ``make quickstart``, ``make status`` and ``make stop`` as ``python -m tools.quickstart``. Everything it
writes lies in ``.quickstart/``, everything it starts listens on 127.0.0.1 only.
"""
