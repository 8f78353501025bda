"""Figures: data in, numbers out."""
