"""`python -m nearkin.cli`: the command `nearkin`, where no script is installed."""

from nearkin.cli.main import main

main(prog_name="nearkin")
