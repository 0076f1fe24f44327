"""Entry point of ``python -m lightning_chex`` and of the console script ``lightning-chex``."""

import sys

from lightning_chex.cli.help_pages import help_page, unknown_class, unknown_command, unknown_option


def run() -> None:
    """Run the command line of this process.

    Raises:
        SystemExit: after an error, which is printed in one line on standard error.
    """
    arguments = sys.argv[1:]
    error = unknown_command(arguments) or unknown_option(arguments) or unknown_class(arguments)
    if error:
        print(error, file=sys.stderr)
        raise SystemExit(2)
    page = help_page(arguments)
    if page is not None:
        print(page, end="")
        return
    # imported here because it imports every library that the package uses, and a help page needs none of them
    from lightning_chex.cli.main import main

    main()


if __name__ == "__main__":
    run()
