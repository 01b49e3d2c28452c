"""`python -m slmops_lab`: the same as the command `slmops`."""

from slmops_lab.course.cli import main

if __name__ == "__main__":
    main()
