"""SLMOps Lab: the support library of the course.

Importing it first quiets the other libraries: `settings` switches their telemetry and hub access
off, and that only works before they are imported.
"""

from slmops_lab import settings

__version__ = "0.1.0"
__all__ = ["settings"]
