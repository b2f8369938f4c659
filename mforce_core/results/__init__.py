"""What a run gives: the result in memory, its files, and the folder that they appear in."""
