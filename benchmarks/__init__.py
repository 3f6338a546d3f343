"""Measurements, each printed as a table by a command of its own."""
