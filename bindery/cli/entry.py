"""What the command `bindery` begins with: nothing but what a Ctrl-C in its first moments needs, which is to end without a word."""

from __future__ import annotations

import signal


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until a command begins, see `bindery.cli.loading`
    from bindery.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
