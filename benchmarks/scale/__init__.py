"""What many machines bring and bear: `python -m benchmarks.scale`."""
