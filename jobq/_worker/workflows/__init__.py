"""The worker's part in workflows: see README.md."""
