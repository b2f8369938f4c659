"""Depth against measured depth as the public harnesses score it: data sets, alignments, measures, reports."""
