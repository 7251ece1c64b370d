"""Part IV from its parts: pruning, quantisation, distillation, entropy coding."""
