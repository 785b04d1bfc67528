"""Sweeps: one study over many seeds and a grid of its fields, cell by cell, on this machine or on Ray."""
