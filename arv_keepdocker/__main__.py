"""`python -m arv_keepdocker`, and what the installed scripts call."""

import signal
from typing import NoReturn

import arv_keepdocker


def main() -> NoReturn:
    """Run the command as this process. Before and after it has handlers of its own, signals end it without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    arv_keepdocker.main()


if __name__ == "__main__":
    main()
