"""The models that ship with aas, as package data; see README.md beside this file."""
