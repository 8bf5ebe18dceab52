"""Benchmarks that are not installed: the results are checked first, then timed in alternation."""
