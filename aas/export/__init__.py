"""Results in the formats of other tools, and corrected masks back: a file for each format (docs/exports.md)."""
