"""Sums of gathered rows by segment: what merging, token maps and up-sampling have in common."""

from kernels.segments.op import accumulation_dtype, row_dots, segment_sum, segment_total, sort_by_row

__all__ = ["accumulation_dtype", "row_dots", "segment_sum", "segment_total", "sort_by_row"]
