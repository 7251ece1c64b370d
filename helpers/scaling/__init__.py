"""Part III from its parts: laws and their fits, sweeps, the ledger of runs."""
