"""The one kind of error that a user can put right."""


class CourseError(Exception):
    """Something a user can put right. One sentence: what is wrong, where, what to do."""

    def _render_traceback_(self):
        """IPython shows these lines instead of a traceback."""
        return [f"{type(self).__name__}: {self}"]
