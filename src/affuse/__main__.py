"""python -m affuse"""

from affuse.cli.app import entry

entry()
