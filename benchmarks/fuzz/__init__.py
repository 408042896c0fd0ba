"""Fuzzing of everything that reads what strangers wrote: `python -m benchmarks.fuzz` (make fuzz).

`targets.py` names the readers, `engine.py` mutates without any further package, `__main__.py` runs one or all of them,
guided by coverage through atheris where that is installed.
"""
