"""Reliability figures: each module measures one and can be run alone; `make reliability` runs them all.

They drive the real server in a process of its own, with a stand-in for the analysis where the networks are not the
question. A short form of each runs in tests/reliability.
"""
