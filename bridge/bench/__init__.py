"""Benchmarks: first figures under honest conditions, one module for each part."""
