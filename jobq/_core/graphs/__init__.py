"""References between the nodes of workflows, and whether their types fit."""
