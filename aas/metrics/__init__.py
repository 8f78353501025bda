"""Figures of what was grounded: data in, plain dictionaries and arrays out."""
