"""Where in an application's code something is declared, and whether that code runs again."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A line of a module or of a notebook's cell."""

    module: str
    code: types.CodeType
    line: int

    @classmethod
    def of_caller(cls, depth: int) -> Place:
        """Return the place of a call, `depth` frames above the caller of this method."""
        frame = sys._getframe(depth + 1)
        return cls(str(frame.f_globals.get("__name__")), frame.f_code, frame.f_lineno)

    def is_rerun(self, new: Place) -> bool:
        """Whether `new` is this line, compiled again: by a cell that is run again, or by a reload.

        In a loop, or in a function that is called again, a line belongs to the same code object.
        """
        return (
            self.code is not new.code
            and self.module == new.module
            and (self.code.co_filename, self.line) == (new.code.co_filename, new.line)
        )

    def is_other_cell(self, new: Place) -> bool:
        """Whether `new` is in another cell of the notebook, perhaps an edited version of this one."""
        return self.module == new.module and self.code.co_filename != new.code.co_filename
