"""The example application: a photo gallery whose work is done by jobq. `jobq demo` runs it.

Read it in this order: ``models`` (its own tables), ``uploads`` (rows and jobs in one transaction), ``app``
(the tasks), ``pictures`` (what they do with Pillow), ``site`` (the pages). ``demo`` puts it on stage.
"""
