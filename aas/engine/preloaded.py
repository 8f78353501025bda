"""Imported by the process that others are forked from (engine/processes.py): what a terminal or a scheduler sends to
all processes must not end it, or those that it forked would end too."""

from aas.forked import leave_to_parent

leave_to_parent()
