"""A selection of jobs, as an operator writes it."""
