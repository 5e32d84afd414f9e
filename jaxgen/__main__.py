"""`python -m jaxgen VERB`."""

from jaxgen.cli import main

main()
