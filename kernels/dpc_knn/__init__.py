"""Clustering by density peaks among k nearest neighbours."""

from kernels.dpc_knn.op import dpc_knn

__all__ = ["dpc_knn"]
