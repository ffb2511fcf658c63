"""Helps for tests of workflows."""
