"""Why a job or a node waits, in words."""
