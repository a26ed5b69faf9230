"""`python -m dynpin`: the command, where its script is not on the PATH."""

from dynpin.cli import main

main()
