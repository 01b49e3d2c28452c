"""What goes in and what comes out: the schema of an answer, data folders, tokens."""
