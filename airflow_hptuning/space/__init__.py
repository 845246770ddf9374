"""The search space: its parameters and their product."""
