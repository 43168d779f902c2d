"""Lets `python -m wsdemo` be the command line."""

import sys

from wsdemo.cli import main

if __name__ == "__main__":
    sys.exit(main())
