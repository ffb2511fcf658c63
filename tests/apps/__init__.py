"""Applications that workers run in tests."""
