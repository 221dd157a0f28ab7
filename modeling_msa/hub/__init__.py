"""Checkpoints as files and repositories: loading, conversion, cards, pushing, export."""
