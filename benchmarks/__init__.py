"""Benchmarks: correctness first, then interleaved timings, medians and spread."""
