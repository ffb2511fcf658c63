"""Whether jobq's promises hold under load and faults, at full size: `python -m bench.reliability --help`.

Each module beside this one that has a function `run` is a proof, named after its file (``many_queues.py``: ``many-queues``):

- its docstring's first line says what it shows;
- `arguments(parser)`, optional, adds its options;
- `run(stage, given)` returns an `Outcome` (stage.py): the figures, and each promise that was broken in words.
"""
