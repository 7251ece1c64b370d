"""What only a GPU can show: `make gpu` measures it within a budget of seconds, phase by phase."""
