"""`python -m lmi.cli` is `lmi`."""

from lmi.cli import main

main()
