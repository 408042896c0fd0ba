"""Reliability figures: each module measures one and can be run alone; `make reliability` runs them all.

They drive the real server in a process of its own, with a stand-in for the analysis where the networks are not the
question. `make chaos` runs a short form of each, tests/benchmarks that of `chaos`.
"""
