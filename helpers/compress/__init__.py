"""Compression from its parts: `course` (models and text), `prune`, `quantize`."""
