"""The files in which pins come and go: wget2's, JSON, JSON lines, CSV, TOML, and Chromium's static list.

Each format has a reader, which takes the lines of a file (an open text file) and gives Known Pinned Hosts one by one,
and most have a writer, which takes entries and gives pieces of text. A reader refuses a file with
:class:`~dynpin.InvalidPinFile`, which names the line or the entry, when it comes to what is wrong: no pin is dropped in
silence, and PinStore.merge writes nothing before it has the last entry. JSON lines, CSV and wget2's file may have a
million entries; the others are read as a whole and are for up to 10,000.
"""

from .chromium import read_chromium
from .csv import read_csv, write_csv
from .fields import certificate_digest
from .json import describe, read_json, read_jsonl, write_json, write_jsonl
from .toml import read_toml, write_toml
from .wget2 import read_wget2, untold, write_wget2

__all__ = [
    "certificate_digest",
    "describe",
    "read_chromium",
    "read_csv",
    "read_json",
    "read_jsonl",
    "read_toml",
    "read_wget2",
    "untold",
    "write_csv",
    "write_json",
    "write_jsonl",
    "write_toml",
    "write_wget2",
]
