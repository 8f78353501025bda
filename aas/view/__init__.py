"""Everything that people look at: pictures, the report, coloured words in the terminal."""
