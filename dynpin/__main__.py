"""`python -m dynpin`: the command, if its script is not on the PATH."""

from dynpin.cli import main

main()
