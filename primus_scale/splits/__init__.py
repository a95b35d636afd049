"""Splits of windows into people for labels and people for the test, and the audit of splits."""
