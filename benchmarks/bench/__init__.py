"""`make bench`: what takes how long, variants side by side in one run, against a plain pipeline as reference.

`python -m benchmarks.bench [SECTION ...] [--short] [--rounds N] [--write]`. The page of results holds what `--write`
measured last, and says how to read it.
"""
