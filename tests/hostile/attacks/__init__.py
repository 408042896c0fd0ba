"""Attacks on the upload path, made by ourselves: bombs, lies, disguises, mutations, and code inside the decoder.

The tests in `tests/hostile` run a short form of each; `benchmarks/reliability/media.py` runs the long one.
"""
