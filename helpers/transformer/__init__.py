"""Part II from its parts: the GPT, its cost, its training, its files."""
