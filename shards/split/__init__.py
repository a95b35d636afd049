"""Shard folders divided into a side for labels and a side for the test."""
