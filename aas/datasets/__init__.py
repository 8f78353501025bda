"""Readers of images, annotations and given answers."""
