"""Encoders out of the program and into it: exports, imported weights, what cards tell."""
