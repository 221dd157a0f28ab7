"""Alignments: their files, rows, variants, structures and search; none of it imports torch."""
