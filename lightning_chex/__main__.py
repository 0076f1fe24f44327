"""``python -m lightning_chex fit | validate | test | predict | inspect | prepare | evaluate | explain``."""

import sys

from lightning_chex.cli.help_pages import help_page, unknown_class, unknown_command, unknown_option

if __name__ == "__main__":
    given = sys.argv[1:]
    if error := unknown_command(given) or unknown_option(given) or unknown_class(given):
        print(error, file=sys.stderr)
        raise SystemExit(2)
    page = help_page(given)
    if page is not None:
        print(page, end="")
    else:
        # here, not above: it imports every library the package uses, and a help page needs none
        from lightning_chex.cli.main import main

        main()
