"""What is measured, by hand: `make bench` runs all of it, `python -m benchmarks.<name>` one; each leaves JSON."""
