"""Compression from its parts: pruning, quantisation, distillation, entropy coding; see README."""
