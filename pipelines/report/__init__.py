"""The report: what the stages measured, as Markdown and as one HTML page that needs no other file.

All numbers come from files that the stages wrote. What was not measured reads "not run". Nothing depends on the time,
so the same inputs give the same bytes.
"""
