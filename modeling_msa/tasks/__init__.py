"""Tasks: an alignment and a model in, arrays, tables and pictures out."""
