"""Part I from its parts: regression, classification, networks, text, tokens, privacy; rules."""
