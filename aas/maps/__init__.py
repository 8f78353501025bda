"""From what was captured to one map per token, a file for each way; and from these to one map per phrase."""
