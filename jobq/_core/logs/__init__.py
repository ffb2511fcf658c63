"""Logs: their formats, the job of a record, the kept records of an attempt, and records for handlers that may wait."""
