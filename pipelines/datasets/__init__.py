"""Datasets on disk: generated ones, and official ones unpacked safely, converted and checked."""
