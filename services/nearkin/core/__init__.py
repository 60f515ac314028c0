"""The pure part: what an item is, which state wins, how neighbours are fused. No I/O, no framework."""
