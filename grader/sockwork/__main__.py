"""`python3 -m sockwork`: the command line. The launcher `./sockwork` ends here."""

from sockwork.cli import main

main()
