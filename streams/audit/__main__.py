"""``python -m streams.audit kafka://… [--export] [--file F]``: the audit without the rest of the command line."""

import sys

from streams.audit.cli import main

sys.exit(main(sys.argv[1:]))
