"""Benchmarks: what the gateway costs, beside the textbook proxy, in the same run on the same core."""
