"""How good the answers are: what is held against them, and the scores with their uncertainty. Files, no services."""
