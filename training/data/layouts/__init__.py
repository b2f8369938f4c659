"""Readers of the layouts in which well-known depth data sets are distributed; docs/data-sets.md has the table."""
