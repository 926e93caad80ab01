"""`python -m berunda`, the same as `berunda`."""

import sys

from berunda.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
