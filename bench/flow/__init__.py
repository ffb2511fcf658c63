"""What groups, limits, rates and turns keep, while workers are killed: `python -m bench.flow --help`."""
