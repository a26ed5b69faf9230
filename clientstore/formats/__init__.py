"""The files in which pins come and go: wget2's, JSON, CSV, TOML, and Chromium's static list.

Each format has a reader, text in and Known Pinned Hosts out, and most have a writer. A reader takes all of a file or
refuses it with :class:`~dynpin.InvalidPinFile`, which names the line or the entry: no pin is dropped in silence.
"""

from dynpin.clientstore.formats.chromium import read_chromium
from dynpin.clientstore.formats.listing import describe, read_csv, read_json, write_csv, write_json
from dynpin.clientstore.formats.toml import read_toml, write_toml
from dynpin.clientstore.formats.wget2 import read_wget2, write_wget2

__all__ = [
    "describe",
    "read_chromium",
    "read_csv",
    "read_json",
    "read_toml",
    "read_wget2",
    "write_csv",
    "write_json",
    "write_toml",
    "write_wget2",
]
