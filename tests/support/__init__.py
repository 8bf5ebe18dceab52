"""Helpers of the tests: networks, reference values, stand-ins and the CPU harness."""
